// The rows of an attention model, and one pass of new tokens through its layers.
#pragma once
#include "attention.h"
#include "model.h"
#include "pool.h"

// One new token of a pass: the row that it belongs to, its place there, and which of the row's segments it is in.
struct Token {
    int64_t id, row, position, type;
};

struct Run {  // tokens of one row, next to each other in a pass
    int64_t first, count;
};

struct State {
    const Model* model;
    std::vector<Past> pasts;  // of each row of a decoder; an encoder's rows have none: one for each thread's head of a row
    std::vector<float> x, y, z, wide, turns, last;
    std::vector<std::vector<float>> scratch;  // of each thread
    Input input;
    std::vector<float> logits;
    std::vector<RowTop> tops;
};

constexpr int64_t PASS = 128;        // tokens that go through the layers together
constexpr int64_t PIECE = 1 << 16;   // bytes of weight, or the time of reading them, that are worth a thread's attention
constexpr int64_t SEGMENT = PANEL * 32;  // logits that are searched at a time

struct Pass {
    const Model& model;
    State& state;
    Pool* pool;
    int threads;
    std::vector<Token> tokens;
    std::vector<Run> runs;
    const float* given = nullptr;  // vectors that ids count, in place of the model's table: already embedded
    bool first_only = false;       // of an encoder: each row's first token is all that is wanted of the last layer

    int64_t rows() const { return static_cast<int64_t>(tokens.size()); }

    // f(piece, thread), in parallel if `cost` of a piece (see PIECE) is worth it: several are then one.
    template <class F>
    void share(int64_t pieces, int64_t cost, F&& f) {
        const int64_t step = std::max<int64_t>(1, PIECE / std::max<int64_t>(1, cost));
        auto some = [&](int64_t chunk, int thread) {
            for (int64_t i = chunk * step; i < std::min(pieces, (chunk + 1) * step); i++) f(i, thread);
        };
        const int64_t chunks = (pieces + step - 1) / step;
        if (pool != nullptr) pool->each(chunks, threads, some);
        else for (int64_t i = 0; i < chunks; i++) some(i, 0);
    }

    void prepare(const float* x, int64_t n, const Map& map) {
        state.input.x = x;
        state.input.make_room(n, map);
        if (map.precision != FLOAT32) share(n, map.depth * 2, [&](int64_t row, int) { state.input.prepare_row(row, map); });
    }

    // finish(row, n_rows, panel, thread) for every tile of rows and panel of the maps, which are equally wide.
    template <class Finish>
    void tiles(int64_t n, const Map& map, Finish&& finish) {
        const int most = most_rows(map);
        share(map.panels, map.panel_bytes() + n * map.stride * PANEL / 16, [&](int64_t panel, int) {
            for (int64_t row = 0; row < n; row += most)
                finish(row, static_cast<int>(std::min<int64_t>(most, n - row)), panel);
        });
    }

    // output (n x map.n_columns) = [output +] activation(map(x)).
    void linear(const float* x, int64_t n, const Map& map, float* output, Activation activation, bool add) {
        prepare(x, n, map);
        tiles(n, map, [&](int64_t row, int m, int64_t panel) {
            alignas(64) float out[ROWS * PANEL];
            panel_tile(state.input, row, m, map, panel, out);
            put(row, m, panel, map.n_columns, output, [&](int64_t at, const float* before) {
                const Vec y = activate(load(out + at), activation);
                return add ? load(before) + y : y;
            });
        });
    }

    // output = silu(gate(x)) * inner(x) (Shazeer 2020).
    void gated(const float* x, int64_t n, const Map& gate, const Map& inner, float* output) {
        prepare(x, n, inner);
        tiles(n, inner, [&](int64_t row, int m, int64_t panel) {
            alignas(64) float open[ROWS * PANEL], out[ROWS * PANEL];
            panel_tile(state.input, row, m, gate, panel, open);
            panel_tile(state.input, row, m, inner, panel, out);
            put(row, m, panel, inner.n_columns, output,
                [&](int64_t at, const float*) { return activate(load(open + at), SILU) * load(out + at); });
        });
    }

    // A tile's real columns to their places: value(place in the tile, where what stood there is).
    template <class Value>
    static void put(int64_t row, int m, int64_t panel, int64_t n_columns, float* output, Value&& value) {
        const int64_t column = panel * PANEL, width = std::min<int64_t>(PANEL, n_columns - column);
        for (int i = 0; i < m; i++) {
            float* to = output + (row + i) * n_columns + column;
            int64_t c = 0;
            for (; c + LANES <= width; c += LANES) store(to + c, value(i * PANEL + c, to + c));
            if (c == width) continue;
            float some[LANES] = {};
            std::memcpy(some, to + c, (width - c) * sizeof(float));
            store(some, value(i * PANEL + c, some));
            std::memcpy(to + c, some, (width - c) * sizeof(float));
        }
    }

    void norm(const float* x, float* y, int64_t n, const Norm& norm, int64_t d) {
        share(n, d * 4, [&](int64_t row, int) {
            if (norm.bias != nullptr) normalise(x + row * d, y + row * d, 1, d, norm.gain, norm.bias, norm.eps);
            else scale_to_one(x + row * d, y + row * d, d, norm.gain, norm.eps);
        });
    }

    // x / rms(x) * gain (Zhang & Sennrich 2019).
    static void scale_to_one(const float* x, float* y, int64_t d, const float* gain, float eps) {
        const float squares = summed(x, d, [](auto v) { return v * v; });
        const float scale = 1.0f / std::sqrt(squares / d + eps);
#pragma omp simd
        for (int64_t i = 0; i < d; i++) y[i] = x[i] * scale * gain[i];
    }

    // x = wiring(x, f): f(in, out, add) writes or adds its result.
    template <class F>
    void wire(const Norm& norm_, F&& f) {
        const int64_t wiring = model.shape.wiring, d = model.shape.d;
        if (wiring == PRE) {
            norm(state.x.data(), state.y.data(), rows(), norm_, d);
            f(state.y.data(), state.x.data(), true);
        } else if (wiring == POST) {
            f(state.x.data(), state.x.data(), true);
            norm(state.x.data(), state.x.data(), rows(), norm_, d);
        } else {
            f(state.x.data(), state.y.data(), false);
            std::swap(state.x, state.y);
        }
    }

    // Cosines and sines of each token's position (Su et al. 2021), the same for all heads and layers.
    void find_turns() {
        const int64_t half = model.E() / 2;
        if (!model.shape.rotary) return;
        for (int64_t t = 0; t < rows(); t++)
            for (int64_t e = 0; e < half; e++) {
                const double angle = tokens[t].position / std::pow(model.rotary_base, 2.0 * e / model.E());
                state.turns[(t * half + e) * 2] = static_cast<float>(std::cos(angle));
                state.turns[(t * half + e) * 2 + 1] = static_cast<float>(std::sin(angle));
            }
    }

    // A query or key, normed and turned as the model wants it, in place.
    void place(float* x, int64_t token, const Norm& norm) {
        const int64_t half = model.E() / 2;
        if (norm.gain != nullptr) scale_to_one(x, x, model.E(), norm.gain, norm.eps);
        if (!model.shape.rotary) return;
        const float* turn = state.turns.data() + token * half * 2;
        for (int64_t e = 0; e < half; e++, turn += 2) {
            const float a = x[e], b = x[e + half];
            x[e] = a * turn[0] - b * turn[1];
            x[e + half] = b * turn[0] + a * turn[1];
        }
    }

    // One row's new tokens and one head of keys and values, with all the heads of queries that share it, for the first
    // `asked` of the tokens.
    void attend_run(const Run& run, int64_t kv_head, int64_t index, int64_t asked, int thread) {
        const Shape& shape = model.shape;
        const Layer& layer = model.layers[index];
        const int64_t E = model.E(), group = shape.heads / shape.kv_heads, width = layer.qkv.n_columns;
        const Past& past = state.pasts[shape.causal ? tokens[run.first].row : thread];
        const int64_t head = shape.causal ? index * shape.kv_heads + kv_head : 0;
        const float scale = 1.0f / std::sqrt(static_cast<float>(E));
        for (int64_t t = run.first; t < run.first + run.count; t++) {
            float* key = state.wide.data() + t * width + shape.d + kv_head * E;
            place(key, t, layer.key_norm);
            past.write(head, tokens[t].position, key, key + shape.kv_heads * E);
        }
        float* scratch = state.scratch[thread].data();
        float* queries = scratch + ROWS * past.capacity;
        float* out[ROWS];
        int64_t first[ROWS], end[ROWS];
        int n = 0;
        for (int64_t i = 0; i < asked * group; i++) {
            const int64_t t = run.first + i / group, at = (kv_head * group + i % group) * E;
            float* query = state.wide.data() + t * width + at;
            place(query, t, layer.query_norm);
            for (int64_t e = 0; e < E; e++) queries[n * E + e] = query[e] * scale;
            see(run, tokens[t].position, first[n], end[n]);
            out[n++] = state.z.data() + t * shape.d + at;
            if (n < ROWS && i + 1 < asked * group) continue;
            attend_to(n, past, head, queries, first, end, scratch, out);
            n = 0;
        }
    }

    // The positions of its row that a token sees: itself, and as far as the window those before it and, of an encoder, after.
    void see(const Run& run, int64_t position, int64_t& first, int64_t& end) const {
        const int64_t window = model.shape.window;
        first = window > 0 ? std::max<int64_t>(0, position + 1 - window) : 0;
        end = model.shape.causal ? position + 1 : window > 0 ? std::min(run.count, position + window) : run.count;
    }

    // From here on the pass is of each row's first token, of which x and z are kept.
    void keep_firsts() {
        const int64_t d = model.shape.d;
        for (size_t i = 0; i < runs.size(); i++) {
            const int64_t first = runs[i].first;
            tokens[i] = tokens[first];
            for (auto* x : {&state.x, &state.z}) std::memmove(x->data() + i * d, x->data() + first * d, d * sizeof(float));
            runs[i] = {static_cast<int64_t>(i), 1};
        }
        tokens.resize(runs.size());
    }

    void layer(int64_t index) {
        const Shape& shape = model.shape;
        const bool firsts = first_only && index + 1 == shape.n_layers;
        const Layer& layer = model.layers[index];
        wire(layer.norm, [&](const float* in, float* out, bool add) {
            linear(in, rows(), layer.qkv, state.wide.data(), NOTHING, false);
            const int64_t kv = shape.kv_heads;
            int64_t cost = 0;
            for (const Run& run : runs) cost = std::max(cost, run.count * (tokens[run.first].position + run.count) * model.E() * 4);
            share(static_cast<int64_t>(runs.size()) * kv, cost,
                  [&](int64_t i, int thread) {
                      attend_run(runs[i / kv], i % kv, index, firsts ? 1 : runs[i / kv].count, thread);
                  });
            if (firsts) keep_firsts();
            linear(state.z.data(), rows(), layer.output, out, NOTHING, add);
        });
        if (shape.d_ff == 0) return;
        wire(layer.outer_norm, [&](const float* in, float* out, bool add) {
            if (shape.activation == SWIGLU) gated(in, rows(), layer.gate, layer.inner, state.wide.data());
            else linear(in, rows(), layer.inner, state.wide.data(), static_cast<Activation>(shape.activation), false);
            linear(state.wide.data(), rows(), layer.outer, out, NOTHING, add);
        });
    }

    void embed() {
        const int64_t d = model.shape.d;
        const float* table = given == nullptr ? model.tokens : given;
        share(rows(), d * 4, [&](int64_t t, int) {
            float* x = state.x.data() + t * d;
            std::memcpy(x, table + tokens[t].id * d, d * sizeof(float));
            if (model.positions != nullptr) add(model.positions + tokens[t].position * d, x);
            if (model.types != nullptr) add(model.types + tokens[t].type * d, x);
        });
        if (model.embedding_norm.gain != nullptr) norm(state.x.data(), state.x.data(), rows(), model.embedding_norm, d);
    }

    void add(const float* from, float* to) const {
        for (int64_t i = 0; i < model.shape.d; i++) to[i] += from[i];
    }

    void make_room() {
        const Shape& shape = model.shape;
        const int64_t n = rows(), E = model.E();
        const int64_t wide = std::max((shape.heads + 2 * shape.kv_heads) * E, shape.d_ff);
        auto at_least = [](std::vector<float>& x, int64_t size) { x.resize(std::max<size_t>(x.size(), size)); };
        for (auto* x : {&state.x, &state.y, &state.z}) at_least(*x, n * shape.d);
        at_least(state.wide, n * wide);
        at_least(state.turns, n * E);
        int64_t capacity = 0;
        if (!shape.causal) make_pasts();
        for (const Past& past : state.pasts) capacity = std::max(capacity, past.capacity);
        state.scratch.resize(std::max<size_t>(state.scratch.size(), threads));
        for (auto& scratch : state.scratch) at_least(scratch, ROWS * (capacity + E));
    }

    // An encoder keeps keys and values while it attends, no longer.
    void make_pasts() {
        int64_t longest = 0;
        for (const Run& run : runs) longest = std::max(longest, run.count);
        auto& pasts = state.pasts;
        if (static_cast<int>(pasts.size()) >= threads && pasts[0].capacity >= longest) return;
        pasts.clear();
        for (int thread = 0; thread < threads; thread++) pasts.emplace_back(longest, model.E(), 1);
    }

    // The tokens through all layers; what comes out stands in state.x.
    void read() {
        runs.clear();
        for (int64_t t = 0; t < rows(); t++) {
            if (t == 0 || tokens[t].row != tokens[t - 1].row) runs.push_back({t, 0});
            runs.back().count++;
        }
        make_room();
        embed();
        find_turns();
        for (int64_t i = 0; i < model.shape.n_layers; i++) layer(i);
    }

    // Logits (n x columns) of the hidden states x.
    void score(float* x, int64_t n, float* logits) {
        if (model.final_norm.gain != nullptr) norm(x, x, n, model.final_norm, model.shape.d);
        prepare(x, n, model.head);
        tiles(n, model.head, [&](int64_t row, int m, int64_t panel) {
            alignas(64) float out[ROWS * PANEL];
            panel_tile(state.input, row, m, model.head, panel, out);
            for (int i = 0; i < m; i++)
                std::memcpy(logits + (row + i) * model.columns() + panel * PANEL, out + i * PANEL, PANEL * sizeof(float));
        });
    }

    // The k likeliest continuations of each of `groups` equal groups of the n rows; see tripel_decoder_read.
    void search(const float* logits, int64_t n, int64_t k, const float* log_p, int64_t groups, float* values, int32_t* origins,
                int32_t* found) {
        const int64_t columns = model.columns(), parts = (columns + SEGMENT - 1) / SEGMENT;
        state.tops.resize(n * parts);
        share(n * parts, SEGMENT * 8, [&](int64_t i, int) {
            RowTop& top = state.tops[i];
            top.clear(k);
            const int64_t begin = i % parts * SEGMENT;
            for (int64_t at = begin; at < std::min(columns, begin + SEGMENT); at += PANEL)
                top.take(logits + i / parts * columns + at, static_cast<int32_t>(at));
        });
        Best best;
        const int64_t width = n / groups;
        for (int64_t g = 0; g < groups; g++) {
            best.clear(k);
            for (int64_t row = g * width; row < (g + 1) * width; row++) gather(row, parts, row - g * width, log_p[row], best);
            best.write(values + g * k, origins + g * k, found + g * k);
        }
    }

    void gather(int64_t row, int64_t parts, int64_t origin, float log_p, Best& best) {
        const RowTop* tops = state.tops.data() + row * parts;
        float most = -INFINITY, sum = 0;
        for (int64_t p = 0; p < parts; p++) most = std::max(most, tops[p].best);
        for (int64_t p = 0; p < parts; p++) sum += tops[p].sum * std::exp(tops[p].best - most);
        const float base = log_p - most - std::log(sum);
        for (int64_t p = 0; p < parts; p++) {
            const Best& kept = tops[p].kept;
            for (int64_t j = 0; j < kept.n && best.wants(base + kept.values[j]); j++)
                best.insert(base + kept.values[j], static_cast<int32_t>(origin), kept.tokens[j]);
        }
    }
};
