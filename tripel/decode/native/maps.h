// Linear maps in float32, bfloat16 or 8 bits: packing the weight, preparing the input, and the product of one panel.
#pragma once
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"

enum Precision { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT8_ROWS = 3 };

// A weight in 8 bits is u - 128 times a scale of its own for every BLOCK numbers of a column, as in llama.cpp's q8_0. The
// scale is a bfloat16 that the numbers were divided by, so that its rounding costs nothing.
// [columns / PANEL][depth / BLOCK]{[BLOCK / GROUP][PANEL][GROUP] of u, [PANEL] scales}
constexpr int BLOCK = 32;
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
constexpr int GROUP = 4;  // products of four numbers of 8 bits at a time: inputs are rounded to 8 bits as well
#else
constexpr int GROUP = 1;  // inputs stay float32
#endif
constexpr int64_t BLOCK_BYTES = PANEL * (BLOCK + 2);
constexpr int ROWS8 = ROWS / 2;  // rows of a tile that keeps two sums for every number

// INT8_ROWS has one scale for a whole column and one for a whole row of the input: less exact, and as fast as numbers of
// 8 bits are multiplied. [columns / PANEL]{[depth / GROUP][PANEL][GROUP] of u, [PANEL] scales in float32}
constexpr int64_t SCALES_BYTES = PANEL * sizeof(float);

// Memory in large pages, where the system has them: a weight that is read from end to end then needs few translations.
class Arena {
public:
    Arena() = default;
    Arena(const Arena&) = delete;
    ~Arena() {
        for (void* chunk : chunks_) std::free(chunk);
    }

    template <class T>
    T* take(int64_t count) {
        const int64_t bytes = rounded(count * static_cast<int64_t>(sizeof(T)), 64);
        if (bytes > left_) {
            left_ = rounded(std::max(bytes, CHUNK), PAGE);
            next_ = static_cast<char*>(std::aligned_alloc(PAGE, left_));
            if (next_ == nullptr) throw std::bad_alloc();
            chunks_.push_back(next_);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
            madvise(next_, left_, MADV_HUGEPAGE);
#endif
        }
        T* taken = reinterpret_cast<T*>(next_);
        next_ += bytes;
        left_ -= bytes;
        return taken;
    }

private:
    static constexpr int64_t PAGE = 1 << 21, CHUNK = 1 << 23;
    static int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

    std::vector<void*> chunks_;
    char* next_ = nullptr;
    int64_t left_ = 0;
};

// y = W x + b. n_columns: of y; panels: of PANEL columns each, the last filled up; depth: of x, filled up to `stride`.
struct Map {
    Precision precision;
    int64_t n_columns, panels, depth, stride;
    const char* weight;
    const float* bias;
    int64_t panel_bytes() const {
        if (precision == INT8) return stride / BLOCK * BLOCK_BYTES;
        if (precision == INT8_ROWS) return stride * PANEL + SCALES_BYTES;
        return stride * PANEL * (precision == FLOAT32 ? 4 : 2);
    }
};

inline uint16_t half_above(float x) {  // the bfloat16 that is x (positive) or the next above
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0xffff) >> 16);
}

inline uint16_t nearest_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_half(uint16_t half) {
    uint32_t bits = static_cast<uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// Up to BLOCK numbers of one column, n of them real, into their places in a block of a panel, which is all zeros before.
inline void pack_block(const float* from, int64_t n, int64_t column, float* block) {
    for (int64_t k = 0; k < n; k++) block[k * PANEL + column] = from[k];
}

inline void pack_block(const float* from, int64_t n, int64_t column, uint16_t* block) {
    for (int64_t k = 0; k < n; k++) block[(k / PAIR * PANEL + column) * PAIR + k % PAIR] = nearest_half(from[k]);
}

inline void pack_block(const float* from, int64_t n, int64_t column, uint8_t* block) {
    float greatest = 0;
    for (int64_t k = 0; k < n; k++) greatest = std::max(greatest, std::fabs(from[k]));
    const uint16_t half = half_above(greatest / 127.0f);
    const float inverse = greatest > 0 ? 1.0f / from_half(half) : 0.0f;
    for (int64_t k = 0; k < BLOCK; k++) {
        const float x = k < n ? std::nearbyint(from[k] * inverse) : 0.0f;
        block[(k / GROUP * PANEL + column) * GROUP + k % GROUP] = static_cast<uint8_t>(static_cast<int>(x) + 128);
    }
    reinterpret_cast<uint16_t*>(block + BLOCK * PANEL)[column] = half;
}

// One panel block by block, so that what is written together lies together.
template <class Number>
inline void pack_panel(const float* weight, int64_t n_real, int64_t depth, int64_t block_bytes, char* panel) {
    for (int64_t k = 0; k < depth; k += BLOCK)
        for (int64_t column = 0; column < PANEL; column++) {
            const int64_t n = column < n_real ? std::min<int64_t>(BLOCK, depth - k) : 0;
            pack_block(weight + column * depth + k, n, column, reinterpret_cast<Number*>(panel + k / BLOCK * block_bytes));
        }
}

inline float greatest_size(const float* x, int64_t n) {
    Vec best{};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const Vec v = load(x + i), size = v < 0.0f ? -v : v;
        best = size > best ? size : best;
    }
    float most = 0;
    for (int v = 0; v < LANES; v++) most = std::max(most, best[v]);
    for (; i < n; i++) most = std::max(most, std::fabs(x[i]));
    return most;
}

inline void pack_rows_panel(const float* weight, int64_t n_real, int64_t depth, int64_t stride, char* panel) {
    uint8_t* to = reinterpret_cast<uint8_t*>(panel);
    float* scales = reinterpret_cast<float*>(panel + stride * PANEL);
    std::memset(to, 128, stride * PANEL);
    for (int64_t column = 0; column < n_real; column++) {
        const float* from = weight + column * depth;
        const float most = greatest_size(from, depth), inverse = most > 0 ? 127.0f / most : 0.0f;
        for (int64_t k = 0; k < depth; k++)
            to[(k / GROUP * PANEL + column) * GROUP + k % GROUP] =
                static_cast<uint8_t>(static_cast<int>(std::nearbyint(from[k] * inverse)) + 128);
        scales[column] = most / 127.0f;
    }
}

// weight: [n_columns][depth]; bias: [n_columns] or nullptr; `fill` is the bias of the columns filled up.
inline Map pack(const float* weight, const float* bias, int64_t n_columns, int64_t depth, Precision precision, float fill,
                Arena& arena) {
    const int64_t unit = precision == INT8 || precision == INT8_ROWS ? BLOCK : precision == BFLOAT16 ? PAIR : 1;
    Map map{precision, n_columns, (n_columns + PANEL - 1) / PANEL, depth, (depth + unit - 1) / unit * unit, nullptr, nullptr};
    char* to = arena.take<char>(map.panels * map.panel_bytes());
    float* all = arena.take<float>(map.panels * PANEL);
    std::memset(to, 0, map.panels * map.panel_bytes());
    for (int64_t p = 0; p < map.panels; p++) {
        const float* from = weight + p * PANEL * depth;
        const int64_t n_real = std::min<int64_t>(PANEL, n_columns - p * PANEL);
        char* panel = to + p * map.panel_bytes();
        if (precision == FLOAT32) pack_panel<float>(from, n_real, depth, BLOCK * PANEL * 4, panel);
        else if (precision == BFLOAT16) pack_panel<uint16_t>(from, n_real, depth, BLOCK * PANEL * 2, panel);
        else if (precision == INT8) pack_panel<uint8_t>(from, n_real, depth, BLOCK_BYTES, panel);
        else pack_rows_panel(from, n_real, depth, map.stride, panel);
    }
    for (int64_t n = 0; n < map.panels * PANEL; n++) all[n] = n >= n_columns ? fill : bias == nullptr ? 0.0f : bias[n];
    map.weight = to;
    map.bias = all;
    return map;
}

// The rows of an input as the tiles of a precision read them.
struct Input {
    const float* x = nullptr;
    std::vector<uint32_t> halves;  // [rows][stride / 2]
    std::vector<int8_t> bytes;     // [rows][stride]
    std::vector<float> scales;     // [rows][stride / BLOCK], of INT8_ROWS [rows]
    std::vector<int32_t> offsets;  // the same: -128 times the sum of what has one scale, for the 128 added to weights

    void make_room(int64_t rows, const Map& map) {
        const int64_t blocks = map.stride / BLOCK;
        if (map.precision == BFLOAT16 && PAIR > 1) halves.resize(std::max<size_t>(halves.size(), rows * map.stride / 2));
        if (map.precision < INT8 || GROUP == 1) return;
        bytes.resize(std::max<size_t>(bytes.size(), rows * map.stride));
        scales.resize(std::max<size_t>(scales.size(), rows * blocks));
        offsets.resize(std::max<size_t>(offsets.size(), rows * blocks));
    }

    void prepare_row(int64_t row, const Map& map) {
        const float* from = x + row * map.depth;
        if (map.precision == BFLOAT16 && PAIR > 1) {
            uint16_t* to = reinterpret_cast<uint16_t*>(halves.data()) + row * map.stride;
            for (int64_t k = 0; k < map.depth; k++) to[k] = nearest_half(from[k]);
            for (int64_t k = map.depth; k < map.stride; k++) to[k] = 0;
        } else if (map.precision == INT8 && GROUP > 1) {
            for (int64_t k = 0; k < map.stride; k += BLOCK)
                round_block(from + k, std::min<int64_t>(BLOCK, map.depth - k), row * map.stride + k);
        } else if (map.precision == INT8_ROWS && GROUP > 1) {
            const float most = greatest_size(from, map.depth);
            scales[row] = most / 127.0f;
            offsets[row] = -128 * round_to(from, map.depth, most, map.stride, bytes.data() + row * map.stride);
        }
    }

private:
    void round_block(const float* from, int64_t n, int64_t at) {
        float part[BLOCK] = {}, greatest = 0;
        std::memcpy(part, from, n * sizeof(float));
        for (int k = 0; k < BLOCK; k++) greatest = std::fabs(part[k]) > greatest ? std::fabs(part[k]) : greatest;
        const float inverse = greatest > 0 ? 127.0f / greatest : 0.0f;
        int32_t sum = 0;
        for (int k = 0; k < BLOCK; k++) sum += bytes[at + k] = nearest(part[k] * inverse);
        scales[at / BLOCK] = greatest / 127.0f;
        offsets[at / BLOCK] = -128 * sum;
    }

    // n numbers, none larger than `most`, to 8 bits each, and zeros up to `stride`; returns their sum.
    static int32_t round_to(const float* from, int64_t n, float most, int64_t stride, int8_t* to) {
        const float inverse = most > 0 ? 127.0f / most : 0.0f;
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < n; k++) sum += to[k] = nearest(from[k] * inverse);
        std::memset(to + n, 0, stride - n);
        return sum;
    }

    static constexpr float NEAREST = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

    static int8_t nearest(float x) {
        const float shifted = x + NEAREST;
        int32_t bits;
        std::memcpy(&bits, &shifted, 4);
        return static_cast<int8_t>(bits);
    }
};

inline Vec load_scales(const uint8_t* block, int v) {
    return load_weight(reinterpret_cast<const uint16_t*>(block + BLOCK * PANEL) + v * LANES);
}

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
// M rows of the input in 8 bits times one panel: exact sums of a block in 32 bits, blocks added up in float32.
template <int M>
inline void tile8(const Input& input, int64_t row, const Map& map, const char* weight, const float* bias, float* out) {
    const int64_t blocks = map.stride / BLOCK;
    Vec sums[M][VECTORS];
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) sums[m][v] = load(bias + v * LANES);
    const uint8_t* block = reinterpret_cast<const uint8_t*>(weight);
    for (int64_t b = 0; b < blocks; b++, block += BLOCK_BYTES) {
        __m512i whole[M][VECTORS];
        for (int m = 0; m < M; m++)
            for (int v = 0; v < VECTORS; v++) whole[m][v] = _mm512_set1_epi32(input.offsets[(row + m) * blocks + b]);
        for (int k = 0; k < BLOCK; k += GROUP) {
            __m512i w[VECTORS];
            for (int v = 0; v < VECTORS; v++) w[v] = _mm512_loadu_si512(block + k * PANEL + v * LANES * GROUP);
            for (int m = 0; m < M; m++) {
                int four;
                std::memcpy(&four, input.bytes.data() + (row + m) * map.stride + b * BLOCK + k, 4);
                const __m512i x = _mm512_set1_epi32(four);
                for (int v = 0; v < VECTORS; v++) whole[m][v] = _mm512_dpbusd_epi32(whole[m][v], w[v], x);
            }
        }
        for (int v = 0; v < VECTORS; v++) {
            const Vec scale = load_scales(block, v);
            for (int m = 0; m < M; m++)
                sums[m][v] += (Vec)_mm512_cvtepi32_ps(whole[m][v]) * (scale * input.scales[(row + m) * blocks + b]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) store(out + m * PANEL + v * LANES, sums[m][v]);
}
#else
inline Vec load_bytes(const uint8_t* p) {
    typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1)));
    return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Vec) - 128.0f;
}

// The same where nothing multiplies numbers of 8 bits faster than float32.
template <int M>
inline void tile8(const Input& input, int64_t row, const Map& map, const char* weight, const float* bias, float* out) {
    Vec sums[M][VECTORS];
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) sums[m][v] = load(bias + v * LANES);
    const uint8_t* block = reinterpret_cast<const uint8_t*>(weight);
    for (int64_t first = 0; first < map.depth; first += BLOCK, block += BLOCK_BYTES) {
        const int64_t n = std::min<int64_t>(BLOCK, map.depth - first);
        Vec part[M][VECTORS] = {};
        for (int64_t k = 0; k < n; k++) {
            Vec w[VECTORS];
            for (int v = 0; v < VECTORS; v++) w[v] = load_bytes(block + k * PANEL + v * LANES);
            for (int m = 0; m < M; m++)
                for (int v = 0; v < VECTORS; v++) part[m][v] += w[v] * input.x[(row + m) * map.depth + first + k];
        }
        for (int m = 0; m < M; m++)
            for (int v = 0; v < VECTORS; v++) sums[m][v] += part[m][v] * load_scales(block, v);
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) store(out + m * PANEL + v * LANES, sums[m][v]);
}
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
// The same with one scale for each row and column: exact sums of all products in 32 bits.
template <int M>
inline void tile_rows(const Input& input, int64_t row, const Map& map, const char* panel, const float* bias, float* out) {
    IntVec sums[M][VECTORS];  // as __m512i, GCC 12 keeps them in memory
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++) sums[m][v] = IntVec{} + input.offsets[row + m];
    const int8_t* x = input.bytes.data() + row * map.stride;
    const uint8_t* weight = reinterpret_cast<const uint8_t*>(panel);
    for (int64_t k = 0; k < map.stride; k += GROUP, weight += PANEL * GROUP) {
        __m512i w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = _mm512_loadu_si512(weight + v * LANES * GROUP);
        for (int m = 0; m < M; m++) {
            int four;
            std::memcpy(&four, x + m * map.stride + k, 4);
            const __m512i same = _mm512_set1_epi32(four);
            for (int v = 0; v < VECTORS; v++) sums[m][v] = (IntVec)_mm512_dpbusd_epi32((__m512i)sums[m][v], w[v], same);
        }
    }
    const float* scales = reinterpret_cast<const float*>(panel + map.stride * PANEL);
    for (int v = 0; v < VECTORS; v++)
        for (int m = 0; m < M; m++) {
            const Vec sum = (Vec)_mm512_cvtepi32_ps((__m512i)sums[m][v]);
            store(out + m * PANEL + v * LANES, sum * (load(scales + v * LANES) * input.scales[row + m]) + load(bias + v * LANES));
        }
}
#else
template <int M>
inline void tile_rows(const Input& input, int64_t row, const Map& map, const char* panel, const float* bias, float* out) {
    Vec sums[M][VECTORS] = {};
    const uint8_t* weight = reinterpret_cast<const uint8_t*>(panel);
    for (int64_t k = 0; k < map.depth; k++, weight += PANEL) {
        Vec w[VECTORS];
        for (int v = 0; v < VECTORS; v++) w[v] = load_bytes(weight + v * LANES);
        for (int m = 0; m < M; m++)
            for (int v = 0; v < VECTORS; v++) sums[m][v] += w[v] * input.x[(row + m) * map.depth + k];
    }
    const float* scales = reinterpret_cast<const float*>(panel + map.stride * PANEL);
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECTORS; v++)
            store(out + m * PANEL + v * LANES, sums[m][v] * load(scales + v * LANES) + load(bias + v * LANES));
}
#endif

template <int M>
inline void tile_of(const Input& input, int64_t row, const Map& map, const char* weight, const float* bias, float* out) {
    if constexpr (M <= ROWS8)
        if (map.precision == INT8) return tile8<M>(input, row, map, weight, bias, out);
    if (map.precision == INT8_ROWS) return tile_rows<M>(input, row, map, weight, bias, out);
    if (map.precision == FLOAT32)
        return tile<M>(input.x + row * map.depth, map.depth, reinterpret_cast<const float*>(weight), bias, map.depth, out);
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(weight);
#if defined(__AVX512BF16__) && defined(__AVX512F__)
    tile<M>(input.halves.data() + row * map.stride / PAIR, map.stride / PAIR, halves, bias, map.stride, out);
#else
    tile<M>(input.x + row * map.depth, map.depth, halves, bias, map.depth, out);
#endif
}

// Rows row .. row + n (n <= most_rows) times one panel of the map, into out [n][PANEL].
inline void panel_tile(const Input& input, int64_t row, int n, const Map& map, int64_t panel, float* out) {
    const char* weight = map.weight + panel * map.panel_bytes();
    const float* bias = map.bias + panel * PANEL;
    switch (n) {
        case 1: return tile_of<1>(input, row, map, weight, bias, out);
        case 2: return tile_of<2>(input, row, map, weight, bias, out);
        case 3: return tile_of<3>(input, row, map, weight, bias, out);
        case 4: return tile_of<4>(input, row, map, weight, bias, out);
        case 5: return tile_of<5>(input, row, map, weight, bias, out);
        default: return tile_of<ROWS>(input, row, map, weight, bias, out);
    }
}

inline int most_rows(const Map& map) { return map.precision == INT8 ? ROWS8 : ROWS; }
