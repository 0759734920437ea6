// The decoder-only attention model (Radford et al. 2019, Touvron et al. 2023) for completion: what tripel.models.decoder
// computes, on packed weights, in a few threads. Every row has a length and a past of its own.
#include "pass.h"

extern "C" {

// Columns of the logits: the vocabulary, filled up.
int64_t tripel_decoder_columns(const Model* model) { return model->columns(); }

State* tripel_decoder_start(const Model* model) {
    State* state = new State{};
    state->model = model;
    return state;
}

void tripel_decoder_free_state(State* state) { delete state; }

// Add n rows that have read nothing, with room for `capacity` tokens each.
void tripel_decoder_add(State* state, int64_t n, int64_t capacity) {
    const Model& model = *state->model;
    for (int64_t i = 0; i < n; i++)
        state->pasts.emplace_back(capacity, model.E(), model.shape.n_layers * model.shape.kv_heads);
}

// Add the rows of another state of the same model, which is left without any.
void tripel_decoder_join(State* state, State* other) {
    for (Past& past : other->pasts) state->pasts.push_back(std::move(past));
    other->pasts.clear();
}

// Keep these rows in this order; only repeats are copied.
void tripel_decoder_select(State* state, const int64_t* rows, int64_t n) {
    std::vector<Past> kept;
    std::vector<int64_t> place(state->pasts.size(), -1);
    kept.reserve(n);
    for (int64_t i = 0; i < n; i++) {
        if (place[rows[i]] >= 0) {
            kept.push_back(kept[place[rows[i]]].copy());
        } else {
            place[rows[i]] = i;
            kept.push_back(std::move(state->pasts[rows[i]]));
        }
    }
    std::swap(state->pasts, kept);
}

// Read counts[row] ids of every row, one row after another. With k > 0: the k likeliest continuations of each of `groups`
// equal groups of the rows that read something, whose log-probabilities so far are log_p, best first: their
// log-probabilities (-inf where there are fewer), rows within the group and tokens. With k = 0: the logits after the last
// id of those rows, rows x columns, in `values`.
void tripel_decoder_read(State* state, const int64_t* ids, const int64_t* counts, int64_t threads, int64_t k, const float* log_p,
                         int64_t groups, float* values, int32_t* origins, int32_t* tokens) {
    const Model& model = *state->model;
    const int64_t d = model.shape.d;
    Pool* pool = threads > 1 ? Pool::begin(static_cast<int>(threads)) : nullptr;
    Pass pass{model, *state, pool, pool == nullptr ? 1 : static_cast<int>(threads), {}, {}};
    std::vector<Token> all;
    for (int64_t row = 0; row < static_cast<int64_t>(state->pasts.size()); row++)
        for (int64_t t = 0; t < counts[row]; t++) all.push_back({*ids++, row, state->pasts[row].length++, 0});
    state->last.clear();
    for (size_t begin = 0; begin < all.size(); begin += PASS) {
        const size_t end = std::min(all.size(), begin + PASS);
        pass.tokens.assign(all.begin() + begin, all.begin() + end);
        pass.read();
        for (size_t t = begin; t < end; t++)
            if (t + 1 == all.size() || all[t + 1].row != all[t].row)
                state->last.insert(state->last.end(), state->x.data() + (t - begin) * d, state->x.data() + (t - begin + 1) * d);
    }
    const int64_t n = static_cast<int64_t>(state->last.size()) / d;
    float* logits = values;
    if (k > 0) {
        state->logits.resize(std::max<size_t>(state->logits.size(), n * model.columns()));
        logits = state->logits.data();
    }
    pass.score(state->last.data(), n, logits);
    if (k > 0) pass.search(logits, n, k, log_p, groups, values, origins, tokens);
    if (pool != nullptr) pool->end();
}

}  // extern "C"
