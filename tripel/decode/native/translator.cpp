// The attention encoder-decoder (Vaswani et al. 2017) for decoding: what tripel.models.encoder_decoder computes in start
// and step, on packed weights, one call a step. Nothing is copied between steps: rows refer to the past by index.
#include <memory>

#include "kernels.h"

enum Wiring { POST = 0, PRE = 1, NONE = 2 };

struct Norm {
    const float *gain, *bias;
};

struct Layer {
    Linear qkv, output, cross_query, cross_kv, cross_output, inner, outer;
    Norm norm, cross_norm, outer_norm;
};

struct Model {
    int64_t d, encoder_ff, decoder_ff, encoder_heads, decoder_heads, n_encoder, n_decoder, vocabulary;
    int64_t wiring, activation, half, has_positions;
    float eps;
    const float *source_tokens, *target_tokens, *source_positions, *target_positions;
    std::vector<Layer> encoder, decoder;
    Norm encoder_norm, decoder_norm;
    Linear head;
};

typedef std::unique_ptr<float[]> Floats;  // left unset: only what has been written is read

struct State {
    const Model* model;
    int64_t capacity, max_rows, rows, length;
    std::vector<int64_t> offsets;             // of each sentence's tokens in the memory
    std::vector<Floats> memory;               // per layer: [tokens][keys D, values D]
    std::vector<Floats> cache;                // per layer: [position][row][keys D, values D]
    std::vector<int32_t> owner, origin;       // of each row: its sentence; for each position, the row that wrote it
    std::vector<int32_t> spare_owner, spare_origin;
    std::vector<float> x, y, z, wide, scratch;
    std::vector<RowTop> tops;
};

namespace {

int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

void embed(const Model& model, const int64_t* ids, int64_t rows, const float* tokens, float* x) {
    for (int64_t i = 0; i < rows; i++) std::memcpy(x + i * model.d, tokens + ids[i] * model.d, model.d * sizeof(float));
}

void add_position(const Model& model, const float* position, float* x) {
    for (int64_t i = 0; i < model.d; i++) x[i] += position[i];
}

// x = wiring(x, f): f(in, out, add) writes or adds its result.
template <class F>
void wire(const Model& model, std::vector<float>& x, std::vector<float>& y, int64_t rows, const Norm& norm, F&& f) {
    if (model.wiring == POST) {
        f(x.data(), x.data(), true);
        normalise(x.data(), x.data(), rows, model.d, norm.gain, norm.bias, model.eps);
    } else if (model.wiring == PRE) {
        normalise(x.data(), y.data(), rows, model.d, norm.gain, norm.bias, model.eps);
        f(y.data(), x.data(), true);
    } else {
        f(x.data(), y.data(), false);
        std::swap(x, y);
    }
}

void feed_forward(const Model& model, State& state, const Layer& layer, int64_t d_ff, int64_t rows, const float* in, float* out,
                  bool add) {
    linear(in, rows, layer.inner, d_ff, state.wide.data(), static_cast<Activation>(model.activation));
    linear(state.wide.data(), rows, layer.outer, model.d, out, NOTHING, add);
}

void encoder_layer(const Model& model, State& state, const Layer& layer, int64_t tokens) {
    const int64_t d = model.d, heads = model.encoder_heads;
    wire(model, state.x, state.y, tokens, layer.norm, [&](const float* in, float* out, bool add) {
        float* qkv = state.wide.data();
        linear(in, tokens, layer.qkv, 3 * d, qkv);
        for (size_t b = 0; b + 1 < state.offsets.size(); b++) {
            const float* first = qkv + state.offsets[b] * 3 * d;
            for (int64_t t = 0; t < state.offsets[b + 1] - state.offsets[b]; t++)
                attend(first + t * 3 * d, heads, d / heads, state.offsets[b + 1] - state.offsets[b],
                       [&](int64_t s) { return first + s * 3 * d + d; }, [&](int64_t s) { return first + s * 3 * d + 2 * d; },
                       state.scratch.data(), state.z.data() + (state.offsets[b] + t) * d);
        }
        linear(state.z.data(), tokens, layer.output, d, out, NOTHING, add);
    });
    wire(model, state.x, state.y, tokens, layer.outer_norm,
         [&](const float* in, float* out, bool add) { feed_forward(model, state, layer, model.encoder_ff, tokens, in, out, add); });
}

void decoder_layer(const Model& model, State& state, int64_t index) {
    const Layer& layer = model.decoder[index];
    const int64_t d = model.d, heads = model.decoder_heads, rows = state.rows, here = state.length;
    float* cache = state.cache[index].get();
    wire(model, state.x, state.y, rows, layer.norm, [&](const float* in, float* out, bool add) {
        float* qkv = state.wide.data();
        linear(in, rows, layer.qkv, 3 * d, qkv);
        for (int64_t n = 0; n < rows; n++) {
            std::memcpy(cache + (here * state.max_rows + n) * 2 * d, qkv + n * 3 * d + d, 2 * d * sizeof(float));
            const int32_t* origin = state.origin.data() + n * state.capacity;
            auto past = [&](int64_t s) { return cache + (s * state.max_rows + origin[s]) * 2 * d; };
            attend(qkv + n * 3 * d, heads, d / heads, here + 1, past, [&](int64_t s) { return past(s) + d; },
                   state.scratch.data(), state.z.data() + n * d);
        }
        linear(state.z.data(), rows, layer.output, d, out, NOTHING, add);
    });
    wire(model, state.x, state.y, rows, layer.cross_norm, [&](const float* in, float* out, bool add) {
        float* query = state.wide.data();
        linear(in, rows, layer.cross_query, d, query);
        for (int64_t n = 0; n < rows; n++) {
            int64_t begin = state.offsets[state.owner[n]], length = state.offsets[state.owner[n] + 1] - begin;
            const float* memory = state.memory[index].get() + begin * 2 * d;
            attend(query + n * d, heads, d / heads, length, [&](int64_t s) { return memory + s * 2 * d; },
                   [&](int64_t s) { return memory + s * 2 * d + d; }, state.scratch.data(), state.z.data() + n * d);
        }
        linear(state.z.data(), rows, layer.cross_output, d, out, NOTHING, add);
    });
    wire(model, state.x, state.y, rows, layer.outer_norm,
         [&](const float* in, float* out, bool add) { feed_forward(model, state, layer, model.decoder_ff, rows, in, out, add); });
}

// Pointers arrive in the order in which tripel/decode/native writes them.
struct Reader {
    const void* const* next;
    const float* floats() { return static_cast<const float*>(*next++); }
    Linear map(int64_t columns, int64_t depth, bool half) {
        const void* weight = *next++;
        return {weight, floats(), padded(columns), depth, half};
    }
    Norm norm() {
        const float* gain = floats();
        return {gain, floats()};
    }
};

Layer read_layer(Reader& read, const Model& model, bool decoder) {
    const bool half = model.half;
    const int64_t d = model.d, d_ff = decoder ? model.decoder_ff : model.encoder_ff;
    Layer layer{};
    layer.qkv = read.map(3 * d, d, half);
    layer.output = read.map(d, d, half);
    layer.norm = read.norm();
    if (decoder) {
        layer.cross_query = read.map(d, d, half);
        layer.cross_kv = read.map(2 * d, d, half);
        layer.cross_output = read.map(d, d, half);
        layer.cross_norm = read.norm();
    }
    layer.inner = read.map(d_ff, d, half);
    layer.outer = read.map(d, d_ff, half);
    layer.outer_norm = read.norm();
    return layer;
}

}  // namespace

extern "C" {

int64_t tripel_panel() { return PANEL; }

int64_t tripel_pair() { return PAIR; }

Model* tripel_model(const int64_t* numbers, float eps, const void* const* pointers) {
    Model* model = new Model{};
    std::memcpy(&model->d, numbers, 12 * sizeof(int64_t));
    model->eps = eps;
    Reader read{pointers};
    model->source_tokens = read.floats();
    model->target_tokens = read.floats();
    model->source_positions = read.floats();
    model->target_positions = read.floats();
    for (int64_t i = 0; i < model->n_encoder; i++)
        model->encoder.push_back(read_layer(read, *model, false));
    for (int64_t i = 0; i < model->n_decoder; i++)
        model->decoder.push_back(read_layer(read, *model, true));
    model->encoder_norm = read.norm();
    model->decoder_norm = read.norm();
    model->head = read.map(model->vocabulary, model->d, model->half);
    return model;
}

void tripel_free_model(Model* model) { delete model; }

// Read sources: ids of all sentences one after another, offsets (sentences + 1). Room for max_rows rows of capacity steps.
State* tripel_start(const Model* model, const int64_t* ids, const int64_t* offsets, int64_t sentences, int64_t max_rows,
                    int64_t capacity) {
    const int64_t d = model->d, tokens = offsets[sentences], most = std::max(tokens, max_rows);
    State* state = new State();
    state->model = model;
    state->capacity = capacity;
    state->max_rows = max_rows;
    state->rows = sentences;
    state->offsets.assign(offsets, offsets + sentences + 1);
    int64_t longest = capacity;
    for (int64_t b = 0; b < sentences; b++) longest = std::max(longest, offsets[b + 1] - offsets[b]);
    state->scratch.resize(std::max(model->encoder_heads, model->decoder_heads) * (longest + LANES));
    state->x.resize(most * d);
    state->y.resize(most * d);
    state->z.resize(most * d);
    state->wide.resize(most * std::max({3 * d, model->encoder_ff, model->decoder_ff}));
    embed(*model, ids, tokens, model->source_tokens, state->x.data());
    if (model->has_positions)
        for (int64_t b = 0; b < sentences; b++)
            for (int64_t i = offsets[b]; i < offsets[b + 1]; i++)
                add_position(*model, model->source_positions + (i - offsets[b]) * d, state->x.data() + i * d);
    for (const Layer& layer : model->encoder) encoder_layer(*model, *state, layer, tokens);
    if (model->wiring == PRE)
        normalise(state->x.data(), state->x.data(), tokens, d, model->encoder_norm.gain, model->encoder_norm.bias, model->eps);
    for (const Layer& layer : model->decoder) {
        state->memory.emplace_back(new float[tokens * 2 * d]);
        linear(state->x.data(), tokens, layer.cross_kv, 2 * d, state->memory.back().get());
        state->cache.emplace_back(new float[capacity * max_rows * 2 * d]);
    }
    state->origin.resize(max_rows * capacity);
    state->spare_origin.resize(max_rows * capacity);
    state->owner.resize(max_rows);
    state->spare_owner.resize(max_rows);
    for (int64_t n = 0; n < sentences; n++) state->owner[n] = static_cast<int32_t>(n);
    return state;
}

void tripel_free_state(State* state) { delete state; }

// Keep these rows in this order: only indices move.
void tripel_select(State* state, const int64_t* rows, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        state->spare_owner[i] = state->owner[rows[i]];
        std::memcpy(state->spare_origin.data() + i * state->capacity, state->origin.data() + rows[i] * state->capacity,
                    state->length * sizeof(int32_t));
    }
    std::swap(state->owner, state->spare_owner);
    std::swap(state->origin, state->spare_origin);
    state->rows = n;
}

// Read one id per row. With k > 0: the k likeliest continuations of each of `groups` equal groups of rows, whose
// log-probabilities so far are log_p, best first: their log-probabilities (-inf where there are fewer), rows within the
// group and tokens. With k = 0: all logits, rows x columns of the head, in `values`. With k < 0: nothing.
void tripel_step(State* state, const int64_t* ids, int64_t k, const float* log_p, int64_t groups, float* values,
                 int32_t* origins, int32_t* tokens) {
    const Model& model = *state->model;
    const int64_t d = model.d, rows = state->rows, here = state->length;
    embed(model, ids, rows, model.target_tokens, state->x.data());
    for (int64_t n = 0; n < rows; n++) {
        if (model.has_positions) add_position(model, model.target_positions + here * d, state->x.data() + n * d);
        state->origin[n * state->capacity + here] = static_cast<int32_t>(n);
    }
    for (int64_t i = 0; i < model.n_decoder; i++) decoder_layer(model, *state, i);
    state->length++;
    if (k < 0) return;
    if (model.wiring == PRE)
        normalise(state->x.data(), state->x.data(), rows, d, model.decoder_norm.gain, model.decoder_norm.bias, model.eps);
    if (k == 0) {
        linear(state->x.data(), rows, model.head, model.head.columns, values);
        return;
    }
    auto& tops = state->tops;
    tops.resize(rows);
    for (auto& top : tops) top.clear(k);
    multiply(state->x.data(), rows, model.head, [&](int64_t row, int n, int64_t column, const float* out) {
        for (int64_t m = 0; m < n; m++) tops[row + m].take(out + m * PANEL, static_cast<int32_t>(column));
    });
    Best best;
    const int64_t width = rows / groups;
    for (int64_t g = 0; g < groups; g++) {
        best.clear(k);
        for (int64_t i = 0; i < width; i++) {
            const RowTop& top = tops[g * width + i];
            const float base = log_p[g * width + i] - top.normaliser();
            for (int64_t j = 0; j < top.kept.n && best.wants(base + top.kept.values[j]); j++)
                best.insert(base + top.kept.values[j], static_cast<int32_t>(i), top.kept.tokens[j]);
        }
        best.write(values + g * k, origins + g * k, tokens + g * k);
    }
}

}  // extern "C"
