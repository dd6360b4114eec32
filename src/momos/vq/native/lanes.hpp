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

// Eight float64 distances, and where the best of each lane was found.
using Distances = double __attribute__((vector_size(64)));
using Positions = int64_t __attribute__((vector_size(64)));

static inline Distances load(const float* values) {
#if defined(__AVX512F__)
    return (Distances)_mm512_cvtps_pd(_mm256_loadu_ps(values));
#else
    using Eight = float __attribute__((vector_size(32)));
    Eight eight;
    std::memcpy(&eight, values, sizeof eight);
    return __builtin_convertvector(eight, Distances);
#endif
}

static inline Distances load(const double* values) {
    Distances eight;
    std::memcpy(&eight, values, sizeof eight);
    return eight;
}

static inline double smallest(Distances distance) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_pd((__m512d)distance);
#else
    double result = distance[0];
    for (int l = 1; l < 8; ++l) result = distance[l] < result ? distance[l] : result;
    return result;
#endif
}

// Bit l is set where distance[l] is `value`.
static inline unsigned equal(Distances distance, double value) {
#if defined(__AVX512F__)
    return _mm512_cmp_pd_mask((__m512d)distance, _mm512_set1_pd(value), _CMP_EQ_OQ);
#else
    unsigned lanes = 0;
    for (int l = 0; l < 8; ++l) lanes |= unsigned(distance[l] == value) << l;
    return lanes;
#endif
}

struct Best {
    Distances distance;
    Positions position;
    unsigned ties = 0;  // lanes that saw their best distance twice

    Best() {
        distance = std::numeric_limits<double>::infinity() - Distances{};
        position = Positions{};
    }

    // Lane l saw distance d[l] at position start + l.
    void see(Distances d, int64_t start) {
        const Positions at = Positions{0, 1, 2, 3, 4, 5, 6, 7} + start;
#if defined(__AVX512F__)
        ties |= _mm512_cmp_pd_mask((__m512d)d, (__m512d)distance, _CMP_EQ_OQ);
        const __mmask8 better = _mm512_cmp_pd_mask((__m512d)d, (__m512d)distance, _CMP_LT_OQ);
        distance = (Distances)_mm512_mask_mov_pd((__m512d)distance, better, (__m512d)d);
        position = (Positions)_mm512_mask_mov_epi64((__m512i)position, better, (__m512i)at);
#else
        const Positions equal = d == distance;
        for (int l = 0; l < 8; ++l) ties |= unsigned(equal[l] & 1) << l;
        const Positions better = d < distance;
        distance = better ? d : distance;
        position = better ? at : position;
#endif
    }

    double smallest() const { return momos::smallest(distance); }

    // The position of the smallest distance, or -1 if more than one has it.
    int64_t only(double smallest) const {
        const unsigned lanes = equal(distance, smallest);
        if ((lanes & (lanes - 1)) || (lanes & ties) || lanes == 0) return -1;
        return position[__builtin_ctz(lanes)];
    }
};

}  // namespace momos
