// The attention encoder (Devlin et al. 2019): what tripel.models.encoder computes up to its last hidden states, on packed
// weights, in a few threads. Texts of different lengths go through the layers one behind the other, without padding.
#include "pass.h"

// Tokens that go through the layers together: as many as make the reading of the weights cheap beside their use, and no
// more, for what lies between two layers then stays in the cache.
constexpr int64_t READ_TOGETHER = 256;

// What one call at a time works in: a state for each thread.
struct Room {
    const Model* model;
    std::vector<State> states;
};

// id(text, position): the place in its table of the vector that a token begins as.
template <class Id>
void read(Room* room, const float* given, const int64_t* types, const int64_t* lengths, int64_t n, int64_t width, int64_t threads,
          bool first_only, float* out, Id&& id) {
    const Model& model = *room->model;
    const int64_t d = model.shape.d;
    auto length = [&](int64_t text) { return lengths == nullptr ? width : lengths[text]; };
    std::vector<int64_t> bounds{0};  // of the texts that are read together
    for (int64_t text = 0, rows = 0; text < n; rows += length(text++)) {
        if (text == bounds.back() || rows + length(text) <= READ_TOGETHER) continue;
        bounds.push_back(text);
        rows = 0;
    }
    const int64_t parts = static_cast<int64_t>(bounds.size());
    bounds.push_back(n);
    auto part = [&](int64_t i, int thread, Pool* pool, int n_threads) {
        State& state = room->states[thread];
        Pass pass{model, state, pool, n_threads, {}, {}, given, first_only};
        for (int64_t text = bounds[i]; text < bounds[i + 1]; text++)
            for (int64_t t = 0; t < length(text); t++)
                pass.tokens.push_back({id(text, t), text, t, types == nullptr ? 0 : types[text * width + t]});
        pass.read();
        float* x = state.x.data();
        if (model.final_norm.gain != nullptr) pass.norm(x, x, pass.rows(), model.final_norm, d);
        for (const Run& run : pass.runs)
            std::memcpy(out + pass.tokens[run.first].row * (first_only ? 1 : width) * d, x + run.first * d, run.count * d * sizeof(float));
    };
    Pool* pool = threads > 1 ? Pool::begin(static_cast<int>(threads)) : nullptr;
    const int n_threads = pool == nullptr ? 1 : static_cast<int>(threads);
    while (static_cast<int>(room->states.size()) < n_threads) room->states.push_back(State{&model});
    // Threads that read different texts never wait for each other; those that share every product of one part do.
    if (pool != nullptr && parts >= 2 * n_threads)
        pool->each(parts, n_threads, [&](int64_t i, int thread) { part(i, thread, nullptr, 1); });
    else
        for (int64_t i = 0; i < parts; i++) part(i, 0, pool, n_threads);
    if (pool != nullptr) pool->end();
}

extern "C" {

Room* tripel_encoder_start(const Model* model) { return new Room{model, {}}; }

void tripel_encoder_free_room(Room* room) { delete room; }

// Hidden states [n][width][d] of n texts, the first lengths[i] positions of each: the others are left as they are. ids and
// types (or null, for the first type everywhere): [n][width].
void tripel_encoder_read(Room* room, const int64_t* ids, const int64_t* types, const int64_t* lengths, int64_t n, int64_t width,
                         int64_t threads, float* out) {
    read(room, nullptr, types, lengths, n, width, threads, false, out, [&](int64_t text, int64_t t) { return ids[text * width + t]; });
}

// The same for n inputs of `width` vectors each that are embedded already: x [n][width][d]. first_only: the hidden states of
// each one's first vector alone, [n][d].
void tripel_encoder_read_given(Room* room, const float* x, int64_t n, int64_t width, int64_t threads, int64_t first_only,
                               float* out) {
    read(room, x, nullptr, nullptr, n, width, threads, first_only != 0, out, [&](int64_t text, int64_t t) { return text * width + t; });
}

}  // extern "C"
