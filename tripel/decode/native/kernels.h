// Kernels of the native decoder: one thread, float32 arithmetic, weights packed into panels.
// Vectors are GCC/Clang vector extensions, so the same source serves AVX-512, AVX2 and NEON.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 4;  // 6 x 4 accumulators + 4 weights of 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2;  // 6 x 2 accumulators + 2 weights of 16 registers
#else
constexpr int LANES = 4, VECTORS = 4;
#endif
constexpr int PANEL = LANES * VECTORS;  // columns of a weight that are stored and computed together
constexpr int ROWS = 6;                 // rows of a tile

typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4), aligned(4)));

// Where the processor multiplies pairs of bfloat16, weights in bfloat16 lie in pairs and inputs are rounded to it as well.
#if defined(__AVX512BF16__) && defined(__AVX512F__)
constexpr int PAIR = 2;
#else
constexpr int PAIR = 1;
#endif

// A linear map. weight: [columns / PANEL][depth / PAIR][PANEL][PAIR] in bfloat16 if half, else [columns / PANEL][depth]
// [PANEL] in float32; bias: as many columns, filled up.
struct Linear {
    const void* weight;
    const float* bias;
    int64_t columns, depth;
    bool half;
};

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<Vec*>(p) = x; }
inline Vec splat(float x) { return x - Vec{}; }  // 0 + x would be computed, for it is not x where x is -0

inline Vec load_weight(const float* p) { return load(p); }
inline Vec load_weight(const uint16_t* p) {  // bfloat16 is the upper half of float32
    typedef uint16_t Half __attribute__((vector_size(LANES * 2), aligned(2)));
    IntVec wide = __builtin_convertvector(*reinterpret_cast<const Half*>(p), IntVec);
    return (Vec)(wide << 16);
}

// exp(x) to 2e-7 relative (Cephes' polynomial on [-ln2/2, ln2/2]); 0 below -87.
inline Vec exponential(Vec x) {
    x = x > 88.0f ? splat(88.0f) : x;
    Vec tiny = x < -87.0f ? splat(0.0f) : splat(1.0f);
    x = x < -87.0f ? splat(-87.0f) : x;
    Vec shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the integer ends in the low bits
    Vec whole = shifted - 12582912.0f;
    Vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Vec y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    IntVec scale = ((IntVec)shifted << 23) + (127 << 23);  // the constant's own bits are shifted out
    return y * (Vec)scale * tiny;
}

// erf(x) to 2e-7: x times a polynomial in x^2, the closest in the least-squares sense that was reweighted until its errors
// were level (Lawson 1961); 1 or -1 beyond 3.8 to the same.
inline Vec error_function(Vec x) {
    constexpr float END = 3.8f;
    constexpr float FACTORS[] = {
        1.022037182e-03f, -2.695739754e-03f, 2.367440023e-03f, -3.299527404e-03f, 9.949309845e-03f,
        -1.833320713e-02f, 2.669315993e-02f, -3.893968842e-02f, 5.505651934e-02f, -7.251548764e-02f,
        9.083271350e-02f, -1.111855776e-01f, 1.377395163e-01f, -1.856412011e-01f, 3.721076205e-01f,
    };
    x = x > END ? splat(END) : x;
    x = x < -END ? splat(-END) : x;
    const Vec t = x * x * (2.0f / (END * END)) - 1.0f;  // from -1 to 1, where such a sum is exact in float32
    Vec y{};
    for (float factor : FACTORS) y = y * t + factor;
    return x * y;
}

inline float total(Vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

inline float greatest(const float* p, int64_t n) {  // n a multiple of LANES
    Vec best = load(p);
    for (int64_t i = LANES; i < n; i += LANES) {
        Vec x = load(p + i);
        best = x > best ? x : best;
    }
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)best);
#else
    float value = best[0];
    for (int i = 1; i < LANES; i++) value = std::max(value, best[i]);
    return value;
#endif
}

// One tile: M rows of the input times one panel, left in `out` [M][PANEL].
template <int M, class Weight>
inline void tile(const float* input, int64_t stride, const Weight* weight, const float* bias, int64_t depth, float* out) {
    Vec sums[M][VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        Vec b = load(bias + v * LANES);
        for (int m = 0; m < M; m++) sums[m][v] = b;
    }
    for (int64_t k = 0; k < depth; k++, weight += PANEL) {
        Vec w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = load_weight(weight + v * LANES);
        for (int m = 0; m < M; m++) {
            Vec x = splat(input[m * stride + k]);
            for (int v = 0; v < VECTORS; v++) sums[m][v] += x * w[v];
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) store(out + m * PANEL + v * LANES, sums[m][v]);
}

#if defined(__AVX512BF16__) && defined(__AVX512F__)
// The same for an input rounded to bfloat16, in pairs: twice as many products at a time, sums in float32.
template <int M>
inline void tile(const uint32_t* input, int64_t stride, const uint16_t* weight, const float* bias, int64_t depth, float* out) {
    __m512 sums[M][VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        __m512 b = _mm512_loadu_ps(bias + v * LANES);
        for (int m = 0; m < M; m++) sums[m][v] = b;
    }
    for (int64_t k = 0; k < depth / PAIR; k++, weight += PANEL * PAIR) {
        __m512bh w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = (__m512bh)_mm512_loadu_si512(weight + v * LANES * PAIR);
        for (int m = 0; m < M; m++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(input[m * stride + k]));
            for (int v = 0; v < VECTORS; v++) sums[m][v] = _mm512_dpbf16_ps(sums[m][v], w[v], x);
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(out + m * PANEL + v * LANES, sums[m][v]);
}

// n numbers (n even) rounded to the nearest bfloat16, ties to even.
inline void round_to_half(const float* from, int64_t n, uint32_t* to) {
    auto round = [](float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    for (int64_t i = 0; i < n; i += 2) to[i / 2] = round(from[i]) | round(from[i + 1]) << 16;
}
#endif

// Every tile of input (rows x depth) times a linear map; finish(row, n_rows, column, tile) receives each. A panel of the
// weight stays in the cache while all rows pass it.
template <class Input, class Weight, class Finish>
inline void multiply_as(const Input* input, int64_t stride, int64_t rows, const Linear& map, Finish&& finish) {
    alignas(64) float out[ROWS * PANEL];
    for (int64_t column = 0; column < map.columns; column += PANEL) {
        const Weight* weight = static_cast<const Weight*>(map.weight) + column * map.depth;
        const float* bias = map.bias + column;
        for (int64_t row = 0; row < rows; row += ROWS) {
            const Input* x = input + row * stride;
            int n = static_cast<int>(std::min<int64_t>(ROWS, rows - row));
            switch (n) {
                case 1: tile<1>(x, stride, weight, bias, map.depth, out); break;
                case 2: tile<2>(x, stride, weight, bias, map.depth, out); break;
                case 3: tile<3>(x, stride, weight, bias, map.depth, out); break;
                case 4: tile<4>(x, stride, weight, bias, map.depth, out); break;
                case 5: tile<5>(x, stride, weight, bias, map.depth, out); break;
                default: tile<ROWS>(x, stride, weight, bias, map.depth, out);
            }
            finish(row, n, column, out);
        }
    }
}

template <class Finish>
inline void multiply(const float* input, int64_t rows, const Linear& map, Finish&& finish) {
    if (!map.half) return multiply_as<float, float>(input, map.depth, rows, map, finish);
#if defined(__AVX512BF16__) && defined(__AVX512F__)
    thread_local std::vector<uint32_t> rounded;
    rounded.resize(rows * map.depth / PAIR);
    round_to_half(input, rows * map.depth, rounded.data());
    multiply_as<uint32_t, uint16_t>(rounded.data(), map.depth / PAIR, rows, map, finish);
#else
    multiply_as<float, uint16_t>(input, map.depth, rows, map, finish);
#endif
}

enum Activation { NOTHING = 0, RELU = 1, GELU = 2, SILU = 3, GELU_TANH = 4, RELU_SQUARED = 5, SWIGLU = 6 };

inline Vec activate(Vec x, Activation activation) {
    switch (activation) {
        case RELU: return x > 0.0f ? x : splat(0.0f);
        case SILU: return x / (1.0f + exponential(-x));
        case RELU_SQUARED: return x > 0.0f ? x * x : splat(0.0f);
        case GELU_TANH:  // 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u)), u of Hendrycks & Gimpel 2016, section 2
            return x / (1.0f + exponential(x * (-1.5957691216057308f - 0.0713548162726f * x * x)));
        case GELU: return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
        default: return x;
    }
}

// output (rows x columns, dense) = [output +] activation(input * map). n_columns: the real ones, before filling up.
inline void linear(const float* input, int64_t rows, const Linear& map, int64_t n_columns, float* output,
                   Activation activation = NOTHING, bool add = false) {
    multiply(input, rows, map, [&](int64_t row, int n, int64_t column, const float* out) {
        int64_t width = std::min<int64_t>(PANEL, n_columns - column);
        for (int m = 0; m < n; m++) {
            float* to = output + (row + m) * n_columns + column;
            const float* from = out + m * PANEL;
            int64_t i = 0;
            for (; i + LANES <= width; i += LANES) {
                Vec y = activate(load(from + i), activation);
                store(to + i, add ? load(to + i) + y : y);
            }
            for (; i < width; i++) {
                float y = activate(splat(from[i]), activation)[0];
                to[i] = add ? to[i] + y : y;
            }
        }
    });
}

// The sum of term(x[i]), of numbers and of vectors alike. Written out, for compilers do not see a vector in a reduction
// that has been inlined into a closure.
template <class Term>
inline float summed(const float* x, int64_t n, Term&& term) {
    Vec sums{}, more{};  // two, so that one addition need not wait for the other
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        sums += term(load(x + i));
        more += term(load(x + i + LANES));
    }
    float sum = total(sums + more);
    for (; i < n; i++) sum += term(x[i]);
    return sum;
}

// Layer normalisation (Ba et al. 2016) of each row, from x to y (which may be x).
inline void normalise(const float* x, float* y, int64_t rows, int64_t d, const float* gain, const float* bias, float eps) {
    for (int64_t row = 0; row < rows; row++, x += d, y += d) {
        const float mean = summed(x, d, [](auto v) { return v; }) / d;
        const float squares = summed(x, d, [mean](auto v) { return (v - mean) * (v - mean); });
        const float scale = 1.0f / std::sqrt(squares / d + eps);
#pragma omp simd
        for (int64_t i = 0; i < d; i++) y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
    }
}

// Dot products of each head's part of a query with the same part of a key; E is WIDTH where that is not 0.
template <int WIDTH>
inline void head_dots(const float* query, const float* key, int64_t heads, int64_t E, float* out, int64_t stride) {
    for (int64_t h = 0; h < heads; h++) {
        const int64_t n = WIDTH ? WIDTH : E;
        const float *q = query + h * n, *k = key + h * n;
        float sum = 0;
        if constexpr (WIDTH != 0 && WIDTH % LANES == 0) {
            Vec sums = load(q) * load(k);
            for (int i = LANES; i < WIDTH; i += LANES) sums += load(q + i) * load(k + i);
            sum = total(sums);
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < n; i++) sum += q[i] * k[i];
        }
        out[h * stride] = sum;
    }
}

template <int WIDTH>
inline void add_values(const float* weights, int64_t stride, const float* value, int64_t heads, int64_t E, float* y) {
    for (int64_t h = 0; h < heads; h++) {
        const int64_t n = WIDTH ? WIDTH : E;
        const float weight = weights[h * stride];
        const float* v = value + h * n;
        float* to = y + h * n;
        if constexpr (WIDTH != 0 && WIDTH % LANES == 0) {
            for (int i = 0; i < WIDTH; i += LANES) store(to + i, load(to + i) + weight * load(v + i));
        } else {
#pragma omp simd
            for (int64_t i = 0; i < n; i++) to[i] += weight * v[i];
        }
    }
}

// softmax(q k^T / sqrt(E)) v of one query over n keys, every head (Vaswani 2017, eq. 1). key(s), value(s): pointers to
// the D numbers of position s. scratch: heads * (n rounded up to LANES) numbers.
template <int WIDTH, class Key, class Value>
inline void attend_as(const float* query, int64_t heads, int64_t E, int64_t n, Key key, Value value, float* scratch, float* y) {
    const int64_t width = (n + LANES - 1) / LANES * LANES;
    const float scale = 1.0f / std::sqrt(static_cast<float>(E));
    for (int64_t s = 0; s < n; s++) head_dots<WIDTH>(query, key(s), heads, E, scratch + s, width);
    for (int64_t h = 0; h < heads; h++) {
        float* scores = scratch + h * width;
        std::fill(scores + n, scores + width, -1e30f);
        const float best = greatest(scores, width);
        Vec sum{};
        for (int64_t s = 0; s < width; s += LANES) {
            Vec e = exponential((load(scores + s) - best) * scale);
            sum += e;
            store(scores + s, e);
        }
        const float inverse = 1.0f / total(sum);
        for (int64_t s = 0; s < width; s += LANES) store(scores + s, load(scores + s) * inverse);
    }
    std::fill(y, y + heads * E, 0.0f);
    for (int64_t s = 0; s < n; s++) add_values<WIDTH>(scratch + s, width, value(s), heads, E, y);
}

template <class Key, class Value>
inline void attend(const float* query, int64_t heads, int64_t E, int64_t n, Key key, Value value, float* scratch, float* y) {
    if (E == 32) attend_as<32>(query, heads, E, n, key, value, scratch, y);
    else if (E == 64) attend_as<64>(query, heads, E, n, key, value, scratch, y);
    else attend_as<0>(query, heads, E, n, key, value, scratch, y);
}

// The k greatest values of a stream, best first, with the row and token of each; of equals the first.
struct Best {
    int64_t k = 0, n = 0;
    std::vector<float> values;
    std::vector<int32_t> rows, tokens;

    void clear(int64_t most) {
        k = most;
        n = 0;
        values.resize(k);
        rows.resize(k);
        tokens.resize(k);
    }

    bool wants(float value) const { return value > -INFINITY && (n < k || value > values[n - 1]); }

    void insert(float value, int32_t row, int32_t token) {
        if (n < k) n++;
        int64_t place = n - 1;
        for (; place > 0 && values[place - 1] < value; place--) {
            values[place] = values[place - 1];
            rows[place] = rows[place - 1];
            tokens[place] = tokens[place - 1];
        }
        values[place] = value;
        rows[place] = row;
        tokens[place] = token;
    }

    void write(float* to_values, int32_t* to_rows, int32_t* to_tokens) const {
        for (int64_t i = 0; i < k; i++) {
            to_values[i] = i < n ? values[i] : -INFINITY;
            to_rows[i] = i < n ? rows[i] : 0;
            to_tokens[i] = i < n ? tokens[i] : 0;
        }
    }
};

// The k greatest logits of one row and log sum exp of all: fed tile by tile, so that the logits of a vocabulary are never
// written to memory.
struct RowTop {
    Best kept;
    float best, sum;

    void clear(int64_t k) {
        kept.clear(k);
        best = -INFINITY;
        sum = 0;
    }

    void take(const float* logits, int32_t first) {
        float most = greatest(logits, PANEL);
        if (most == -INFINITY) return;
        if (most > best) {  // the running maximum keeps every exponential in range (Milakov & Gimelshein 2018)
            sum = sum > 0 ? sum * std::exp(best - most) : 0;
            best = most;
        }
        Vec sums{};
        for (int i = 0; i < PANEL; i += LANES) sums += exponential(load(logits + i) - best);
        sum += total(sums);
        if (!kept.wants(most)) return;
        for (int i = 0; i < PANEL; i++)
            if (kept.wants(logits[i])) kept.insert(logits[i], 0, first + i);
    }

    float normaliser() const { return best + std::log(sum); }
};
