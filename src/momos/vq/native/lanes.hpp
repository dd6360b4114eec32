// One float32 vector of the processor's own width, and the few operations that differ by it.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace momos {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr unsigned kAllLanes = (1u << kLanes) - 1;
using Lanes = float __attribute__((vector_size(4 * kLanes)));

struct Row {  // a container of Lanes would lose their alignment, a container of Row keeps it
    Lanes lanes;
};

static inline Lanes broadcast(float value) { return value - Lanes{}; }
static inline Lanes smaller(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Lanes)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

static inline Lanes larger(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Lanes)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

// c - a * b and c + a * b, fused where the processor can: for sums whose error
// bound allows either.
static inline Lanes subtract_product(Lanes c, Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Lanes)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return c - a * b;
#endif
}

static inline Lanes add_product(Lanes c, Lanes a, Lanes b) { return subtract_product(c, -a, b); }

// Bit l is set where a[l] <= b[l].
static inline unsigned at_most(Lanes a, Lanes b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ);
#elif defined(__AVX__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ));
#else
    unsigned lanes = 0;
    for (int l = 0; l < kLanes; ++l) lanes |= unsigned(a[l] <= b[l]) << l;
    return lanes;
#endif
}

static inline Lanes root(Lanes a) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX__)
    return (Lanes)_mm256_sqrt_ps((__m256)a);
#else
    for (int l = 0; l < kLanes; ++l) a[l] = __builtin_sqrtf(a[l]);
    return a;
#endif
}

// Eight float64 distances, in as many vectors as the processor needs: the compiler computes with
// wider ones number by number.
#if defined(__AVX512F__)
constexpr int kWide = 8;
#elif defined(__AVX2__)
constexpr int kWide = 4;
#else
constexpr int kWide = 2;
#endif
constexpr int kVectors = 8 / kWide;
using Wide = double __attribute__((vector_size(8 * kWide)));
using Places = int64_t __attribute__((vector_size(8 * kWide)));

struct Distances {
    Wide part[kVectors];
};

static inline Distances load(const double* values) {
    Distances eight;
    std::memcpy(&eight, values, sizeof eight);
    return eight;
}

static inline Distances load(const float* values) {
    Distances eight;
    for (int v = 0; v < kVectors; ++v) {
#if defined(__AVX512F__)
        eight.part[v] = (Wide)_mm512_cvtps_pd(_mm256_loadu_ps(values));
#elif defined(__AVX2__)
        eight.part[v] = (Wide)_mm256_cvtps_pd(_mm_loadu_ps(values + v * kWide));
#else
        for (int l = 0; l < kWide; ++l) eight.part[v][l] = values[v * kWide + l];
#endif
    }
    return eight;
}

// (a - x)^2 + (b - y)^2, each operation rounded.
static inline Distances squares(const Distances& a, double x, const Distances& b, double y) {
    Distances sum;
    for (int v = 0; v < kVectors; ++v) {
        const Wide dx = a.part[v] - x, dy = b.part[v] - y;
        sum.part[v] = dx * dx + dy * dy;
    }
    return sum;
}

static inline double smallest(const Distances& distance) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_pd((__m512d)distance.part[0]);
#else
    Wide least = distance.part[0];
    for (int v = 1; v < kVectors; ++v)
        least = distance.part[v] < least ? distance.part[v] : least;
    double result = least[0];
    for (int l = 1; l < kWide; ++l) result = least[l] < result ? least[l] : result;
    return result;
#endif
}

// Bit l is set where lane l is.
static inline unsigned bits_of(Places lanes) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    return unsigned(_mm256_movemask_pd((__m256d)lanes));
#else
    unsigned bits = 0;
    for (int l = 0; l < kWide; ++l) bits |= unsigned(lanes[l] & 1) << l;
    return bits;
#endif
}

// Bit l is set where distance[l] is `value`.
static inline unsigned equal(const Distances& distance, double value) {
#if defined(__AVX512F__)
    return _mm512_cmp_pd_mask((__m512d)distance.part[0], _mm512_set1_pd(value), _CMP_EQ_OQ);
#else
    unsigned lanes = 0;
    for (int v = 0; v < kVectors; ++v)
        lanes |= bits_of(distance.part[v] == value) << (v * kWide);
    return lanes;
#endif
}

struct Best {
    Distances distance;  // the smallest that each lane saw
    Places position[kVectors];
#if defined(__AVX512F__)
    unsigned ties = 0;  // lanes that saw their best distance twice
#else
    Places ties[kVectors] = {};
#endif

    Best() {
        for (int v = 0; v < kVectors; ++v) {
            distance.part[v] = std::numeric_limits<double>::infinity() - Wide{};
            position[v] = Places{};
        }
    }

    // Lane l saw distance d[l] at position start + l.
    void see(const Distances& d, int64_t start) {
#if defined(__AVX512F__)
        const Places at = Places{0, 1, 2, 3, 4, 5, 6, 7} + start;
        const __m512d seen = (__m512d)d.part[0], best = (__m512d)distance.part[0];
        ties |= _mm512_cmp_pd_mask(seen, best, _CMP_EQ_OQ);
        const __mmask8 better = _mm512_cmp_pd_mask(seen, best, _CMP_LT_OQ);
        distance.part[0] = (Wide)_mm512_mask_mov_pd(best, better, seen);
        position[0] = (Places)_mm512_mask_mov_epi64((__m512i)position[0], better, (__m512i)at);
#else
        for (int v = 0; v < kVectors; ++v) {
            Places at = start + v * kWide - Places{};
            for (int l = 1; l < kWide; ++l) at[l] += l;
            const Wide seen = d.part[v], best = distance.part[v];
            ties[v] |= seen == best;
            const Places better = seen < best;
            distance.part[v] = better ? seen : best;
            position[v] = better ? at : position[v];
        }
#endif
    }

    double smallest() const { return momos::smallest(distance); }

    // The position of the smallest distance, or -1 if more than one has it.
    int64_t only(double smallest) const {
        const unsigned lanes = equal(distance, smallest);
        if ((lanes & (lanes - 1)) || (lanes & tied()) || lanes == 0) return -1;
        const int l = __builtin_ctz(lanes);
        return position[l / kWide][l % kWide];
    }

   private:
    unsigned tied() const {
#if defined(__AVX512F__)
        return ties;
#else
        unsigned lanes = 0;
        for (int v = 0; v < kVectors; ++v) lanes |= bits_of(ties[v]) << (v * kWide);
        return lanes;
#endif
    }
};

}  // namespace momos
