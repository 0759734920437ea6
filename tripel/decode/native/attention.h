// Attention of a few queries to the keys and values of one row and head, kept where the next token will look for them.
#pragma once
#include <memory>

#include "kernels.h"

// A head's keys lie in panels of PANEL positions, [capacity / PANEL][E][PANEL], so that scores are a product like any
// other; its values by position, [capacity][width]. One allocation holds those of every layer and head of a row.
struct Past {
    int64_t capacity, E, width, n_heads, length = 0;
    std::unique_ptr<float[]> numbers;

    Past(int64_t most, int64_t E_, int64_t n_heads_)
        : capacity((most + PANEL - 1) / PANEL * PANEL), E(E_), width((E_ + LANES - 1) / LANES * LANES), n_heads(n_heads_),
          numbers(new float[capacity * (E + width) * n_heads]) {}  // left unset: only what has been written is used

    float* keys(int64_t head) const { return numbers.get() + head * capacity * (E + width); }
    float* values(int64_t head) const { return keys(head) + capacity * E; }

    void write(int64_t head, int64_t position, const float* key, const float* value) const {
        float* to = keys(head) + position / PANEL * E * PANEL + position % PANEL;
        for (int64_t e = 0; e < E; e++) to[e * PANEL] = key[e];
        to = values(head) + position * width;
        std::memcpy(to, value, E * sizeof(float));
        std::fill(to + E, to + width, 0.0f);
    }

    Past copy() const {
        Past other(capacity, E, n_heads);
        other.length = length;
        for (int64_t head = 0; head < n_heads; head++) {
            std::memcpy(other.keys(head), keys(head), (length + PANEL - 1) / PANEL * PANEL * E * sizeof(float));
            std::memcpy(other.values(head), values(head), length * width * sizeof(float));
        }
        return other;
    }
};

// out [M][N * LANES] = weights [M][stride] times values [n][width], N vectors of it.
template <int M, int N>
inline void weigh(const float* weights, int64_t stride, const float* values, int64_t width, int64_t n, float* out) {
    Vec sums[M][N] = {};
    for (int64_t s = 0; s < n; s++, values += width)
        for (int v = 0; v < N; v++) {
            const Vec value = load(values + v * LANES);
            for (int m = 0; m < M; m++) sums[m][v] += value * weights[m * stride + s];
        }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < N; v++) store(out + (m * N + v) * LANES, sums[m][v]);
}

template <int M>
inline void weigh(const float* weights, int64_t stride, const float* values, int64_t width, int64_t n, int64_t vectors, float* out) {
    switch (vectors) {
        case 1: return weigh<M, 1>(weights, stride, values, width, n, out);
        case 2: return weigh<M, 2>(weights, stride, values, width, n, out);
        case 3: return weigh<M, 3>(weights, stride, values, width, n, out);
        default: return weigh<M, 4>(weights, stride, values, width, n, out);
    }
}

// Scores to unnormalised weights, in place; those outside [first, end) become 0. Returns 1 / their sum.
inline float soften(float* scores, int64_t begin, int64_t first, int64_t end, int64_t stop) {
    std::fill(scores + begin, scores + first, -1e30f);
    std::fill(scores + end, scores + stop, -1e30f);
    const float best = greatest(scores + begin, stop - begin);
    Vec sum{};
    for (int64_t s = begin; s < stop; s += LANES) {
        const Vec e = exponential(load(scores + s) - best);
        sum += e;
        store(scores + s, e);
    }
    return 1.0f / total(sum);
}

// softmax(q k^T) v of M queries (Vaswani 2017, eq. 1), already divided by sqrt(E). Query m, [M][E], sees the positions
// from first[m] to before end[m], and neither decreases with m. scratch: M * capacity; out[m] receives E numbers.
template <int M>
inline void attend_to(const Past& past, int64_t head, const float* queries, const int64_t* first, const int64_t* end, float* scratch,
                      float* const* out) {
    static const std::vector<float> zero(PANEL, 0.0f);
    const int64_t E = past.E, stride = past.capacity, begin = first[0] / PANEL * PANEL;
    const int64_t stop = (end[M - 1] + PANEL - 1) / PANEL * PANEL;
    alignas(64) float some[M * PANEL];
    for (int64_t s = begin; s < stop; s += PANEL) {
        tile<M>(queries, E, past.keys(head) + s * E, zero.data(), E, some);
        for (int m = 0; m < M; m++) std::memcpy(scratch + m * stride + s, some + m * PANEL, PANEL * sizeof(float));
    }
    float scale[M];
    for (int m = 0; m < M; m++) scale[m] = soften(scratch + m * stride, begin, first[m], end[m], stop);
    for (int64_t column = 0; column < past.width; column += PANEL) {
        const int64_t vectors = std::min<int64_t>(VECTORS, (past.width - column) / LANES);
        const float* values = past.values(head) + begin * past.width + column;
        weigh<M>(scratch + begin, stride, values, past.width, end[M - 1] - begin, vectors, some);
        for (int m = 0; m < M; m++)
            for (int64_t e = column; e < std::min(past.E, column + vectors * LANES); e++)
                out[m][e] = some[m * vectors * LANES + e - column] * scale[m];
    }
}

inline void attend_to(int n, const Past& past, int64_t head, const float* queries, const int64_t* first, const int64_t* end,
                      float* scratch, float* const* out) {
    switch (n) {
        case 1: return attend_to<1>(past, head, queries, first, end, scratch, out);
        case 2: return attend_to<2>(past, head, queries, first, end, scratch, out);
        case 3: return attend_to<3>(past, head, queries, first, end, scratch, out);
        case 4: return attend_to<4>(past, head, queries, first, end, scratch, out);
        case 5: return attend_to<5>(past, head, queries, first, end, scratch, out);
        default: return attend_to<ROWS>(past, head, queries, first, end, scratch, out);
    }
}
