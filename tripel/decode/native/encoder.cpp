// The attention encoder (Devlin et al. 2019): what tripel.models.encoder computes up to its last hidden states, on packed
// weights, in a few threads. Texts of different lengths go through the layers one behind the other, without padding.
#include "pass.h"

// Tokens that go through the layers together: as many as make the reading of the weights cheap beside their use, and no
// more, for what lies between two layers then stays in the cache.
constexpr int64_t READ_TOGETHER = 512;

// id(text, position): the place in its table of the vector that a token begins as.
template <class Id>
void read(State* state, const float* given, const int64_t* types, const int64_t* lengths, int64_t n, int64_t width, int64_t threads,
          float* out, Id&& id) {
    const Model& model = *state->model;
    const int64_t d = model.shape.d;
    Pool* pool = threads > 1 ? Pool::begin(static_cast<int>(threads)) : nullptr;
    Pass pass{model, *state, pool, pool == nullptr ? 1 : static_cast<int>(threads), {}, {}, given};
    auto length = [&](int64_t text) { return lengths == nullptr ? width : lengths[text]; };
    for (int64_t text = 0; text < n;) {
        pass.tokens.clear();
        do {
            for (int64_t t = 0; t < length(text); t++)
                pass.tokens.push_back({id(text, t), text, t, types == nullptr ? 0 : types[text * width + t]});
        } while (++text < n && pass.rows() + length(text) <= READ_TOGETHER);
        pass.read();
        float* x = state->x.data();
        if (model.final_norm.gain != nullptr) pass.norm(x, x, pass.rows(), model.final_norm, d);
        for (const Run& run : pass.runs)
            std::memcpy(out + pass.tokens[run.first].row * width * d, x + run.first * d, run.count * d * sizeof(float));
    }
    if (pool != nullptr) pool->end();
}

extern "C" {

State* tripel_encoder_start(const Model* model) {
    State* state = new State{};
    state->model = model;
    return state;
}

void tripel_encoder_free_state(State* state) { delete state; }

// Hidden states [n][width][d] of n texts, the first lengths[i] positions of each: the others are left as they are. ids and
// types (or null, for the first type everywhere): [n][width].
void tripel_encoder_read(State* state, const int64_t* ids, const int64_t* types, const int64_t* lengths, int64_t n, int64_t width,
                         int64_t threads, float* out) {
    read(state, nullptr, types, lengths, n, width, threads, out, [&](int64_t text, int64_t t) { return ids[text * width + t]; });
}

// The same for n inputs of `width` vectors each that are embedded already: x [n][width][d].
void tripel_encoder_read_given(State* state, const float* x, int64_t n, int64_t width, int64_t threads, float* out) {
    read(state, x, nullptr, nullptr, n, width, threads, out, [&](int64_t text, int64_t t) { return text * width + t; });
}

}  // extern "C"
