// Whole numbers for weights: the path through the trellis whose squared error and code length
// together are least (trellis-coded quantization, Marcellin & Fischer 1990; Viterbi 1967).
//
// Candidates are the two numbers around a weight in each subset, and 0; of a tiny weight 0 alone.
// All arithmetic rounds the same everywhere: sums and products of float64 and float32,
// comparisons, and integers.
#pragma once
#include <cmath>
#include <vector>

#include "balance.hpp"
#include "contexts.hpp"
#include "rans.hpp"
#include "trellis.hpp"

namespace momos::lattice {

constexpr int64_t kSample = int64_t(1) << 17;  // weights that say what numbers cost
constexpr int64_t kRun = int64_t(1) << 13;     // of a sample, one after another
constexpr int kPasses = 3;                     // the first knows no costs
constexpr int64_t kTabled = 4096;              // numbers whose costs are counted
constexpr double kMostSteps = 2147483640.0;    // steps
// Smaller weights become 0: another number would be many times as large, perhaps of another sign.
// Where one output's weights differ by orders of magnitude, the small ones belong to large inputs.
constexpr double kTiny = 0.25;

// log2 of a number >= 1, in 1/65536, rounded down.
inline int64_t log2_fixed(uint64_t value) {
    const int length = bit_length(value) - 1;
    uint64_t mantissa = length > 31 ? value >> (length - 31) : value << (31 - length);
    int64_t result = length;
    for (int i = 0; i < 16; ++i) {
        mantissa = (mantissa * mantissa) >> 31;
        result = result << 1 | int64_t(mantissa >> 32);
        mantissa >>= mantissa >> 32;
    }
    return result;
}

// How many bits each index of each subset takes, times the weight of a bit.
class Costs {
  public:
    explicit Costs(int64_t largest) : size_(std::min(largest, kTabled)) {
        for (auto& bits : bits_) bits.assign(size_t(size_), 0);
        for (auto& count : counts_) count.assign(size_t(size_), 0);
    }
    void see(int subset, int64_t index) { ++counts_[subset][size_t(std::min(index, size_ - 1))]; }

    // Costs by what was seen since the last time, as if six more had been seen that follow a
    // geometric law.
    void learn(double rate_weight) {
        rate_weight_ = rate_weight;
        for (int subset = 0; subset < 2; ++subset) {
            auto& counts = counts_[subset];
            double sum = 0, total = 0;
            for (int64_t k = 0; k < size_; ++k) {
                sum += double(counts[size_t(k)]) * double(k);
                total += double(counts[size_t(k)]);
            }
            const double mean = (total > 0 ? sum / total : 1) + 0.05, ratio = mean / (1 + mean);
            const int64_t all = log2_fixed(uint64_t((total + 6) * 65536));
            double law = 6 * 65536 * (1 - ratio);
            for (int64_t k = 0; k < size_; ++k, law *= ratio) {
                const double seen = double(counts[size_t(k)]) * 65536 + law;
                const int64_t bits = all - log2_fixed(seen > 1 ? uint64_t(seen) : 1);
                bits_[subset][size_t(k)] = rate_weight * (double(bits) / 65536 + (k ? 1 : 0));
                counts[size_t(k)] = 0;
            }
        }
    }
    double of(int subset, int64_t index) const {
        if (index < size_) return bits_[subset][size_t(index)];
        const int more = bit_length(uint64_t(index)) - bit_length(uint64_t(size_ - 1));
        return bits_[subset][size_t(size_ - 1)] + rate_weight_ * (2 * more);
    }

  private:
    int64_t size_;
    double rate_weight_ = 0;
    std::vector<double> bits_[2];
    std::vector<int64_t> counts_[2];
};

// Weights of one stream, in steps.
template <class T>
struct Steps {
    const T* weights;
    const float* importance;  // or null
    int64_t count;
    Balance balance;

    Steps part(int64_t begin, int64_t size) const {
        return {weights + begin, importance ? importance + begin : nullptr, size,
                balance.from(begin)};
    }
    double size(int64_t i) const { return std::fabs(double(weights[i])); }
    int32_t signed_value(int64_t i, int32_t value) const {  // signs cannot be foreseen
        const int32_t sign = int32_t(weights[i] < 0);
        return (value ^ -sign) + sign;
    }
    double sign(int64_t i) const { return weights[i] < 0 ? -1.0 : 1.0; }
    double importance_of(int64_t i) const { return importance ? double(importance[i]) : 1.0; }
};

constexpr float kNever = 1e30f;  // the cost of what is not allowed

// The index of the number of `subset` that is next to a size, towards 0.
inline int64_t index_below(double size, int subset) {
    return int64_t((size + double(subset)) * 0.5);
}

constexpr double kMostError = 8192;  // added to a sum, so that no cost comes near kNever

// Puts what the best even and the best odd index of a subset cost into `branch`, and by how much
// their numbers exceed the size into `errors`, unless null. Returns whether the even one is 0
// though others are nearer.
[[gnu::always_inline]] inline bool weigh(double size, double importance, int subset,
                                         const Costs& costs, float branch[2],
                                         float* errors = nullptr) {
    const int64_t below = index_below(size, subset);
    const double lower = size - double(2 * below - (subset & int(below != 0)));
    const double upper = double(2 * below + 2 - subset) - size;
    branch[below & 1] = float(importance * (lower * lower) + costs.of(subset, below));
    branch[~below & 1] = float(importance * (upper * upper) + costs.of(subset, below + 1));
    const float none = float(importance * (size * size) + costs.of(subset, 0));
    const bool zero = none < branch[0];
    branch[0] = zero ? none : branch[0];
    branch[1] = size < kTiny ? kNever : branch[1];
    if (errors) {
        errors[below & 1] = float(-lower);
        errors[~below & 1] = float(upper);
        errors[0] = zero ? float(-std::min(size, kMostError)) : errors[0];
    }
    return zero;
}

using Floats4 = float __attribute__((vector_size(16)));

#if defined(__clang__)
#define MOMOS_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define MOMOS_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Four{i, j, k, l})
#endif

// The best paths into all states at once.
//
// If sums of errors count, each path keeps its own, and what a branch costs depends on them
// (per-survivor processing, Raheli, Polydoros & Tzou 1995).
template <int V>
class Survivors {
  public:
    static constexpr int kStates = 1 << V, kHalf = kStates / 2, kVectors = kHalf / 4;
    static constexpr int kOdd = Trellis::kBySubset[V] >> 1 & (kHalf - 1);
    static constexpr int kOne = Trellis::kByParity[V] >> 1;

    Survivors() {
        for (auto& cost : costs_) cost = kNever - Floats4{};
        costs_[0][0] = 0;
    }

    // `branch`: the costs of even and odd indices in subset 0, then in subset 1.
    void step(const float branch[4], uint8_t* parities) {
        Floats4 even[kVectors], odd[kVectors];
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
            const Floats4 a = costs_[2 * i], b = costs_[2 * i + 1];
            even[i] = MOMOS_SHUFFLE(a, b, 0, 2, 4, 6);
            odd[i] = MOMOS_SHUFFLE(a, b, 1, 3, 5, 7);
        }
        half<0>(even, branch, costs_, parities);
        half<kOdd>(odd, branch + 2, costs_ + kVectors, parities + kHalf / 8);
    }

    // The same if sums of errors count: `sums` those of each path, `errors` of each branch.
    template <int kSums>
    void step(const float branch[4], const float errors[4], const Tally (&tallies)[kSums],
              Floats4 (&sums)[kSums][kStates / 4], uint8_t* parities) {
        Paths<kSums> even, odd;
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
            const Floats4 a = costs_[2 * i], b = costs_[2 * i + 1];
            even.costs[i] = MOMOS_SHUFFLE(a, b, 0, 2, 4, 6);
            odd.costs[i] = MOMOS_SHUFFLE(a, b, 1, 3, 5, 7);
            for (int k = 0; k < kSums; ++k) {
                const Floats4 c = sums[k][2 * i], d = sums[k][2 * i + 1];
                even.sums[k][i] = MOMOS_SHUFFLE(c, d, 0, 2, 4, 6);
                odd.sums[k][i] = MOMOS_SHUFFLE(c, d, 1, 3, 5, 7);
            }
            even.weigh_sums(i, tallies);
            odd.weigh_sums(i, tallies);
        }
        half<0, kSums>(even, branch, errors, 0, sums, parities);
        half<kOdd, kSums>(odd, branch + 2, errors + 2, kVectors, sums, parities + kHalf / 8);
    }

    // Keeps costs small. What is taken from all alike changes no path.
    void lower() {
        const float least = smallest();
        for (auto& cost : costs_) cost -= least;
    }
    float smallest() const {
        Floats4 least = costs_[0];
        for (const auto& cost : costs_) least = smaller(cost, least);
        return std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
    }
    int best() const {
        int best = 0;
        for (int s = 1; s < kStates; ++s)
            if (cost_of(s) < cost_of(best)) best = s;
        return best;
    }
    // The state from which `state` was reached.
    static int before(int state, int parity) {
        const int i = (state & (kHalf - 1)) ^ (state & kHalf ? kOdd : 0) ^ (parity ? kOne : 0);
        return 2 * i | (state & kHalf ? 1 : 0);
    }

  private:
    // Half of the paths, and how much an error of 1 costs each.
    template <int kSums>
    struct Paths {
        Floats4 costs[kVectors], slopes[kVectors], sums[kSums][kVectors];

        [[gnu::always_inline]] void weigh_sums(int i, const Tally (&tallies)[kSums]) {
            Floats4 slope{};
            for (int k = 0; k < kSums; ++k) {
                const Floats4 sum = sums[k][i];
                costs[i] += sum * sum * tallies[k].rise();
                slope += sum * tallies[k].slope();
            }
            slopes[i] = slope;
        }
    };

    float cost_of(int s) const { return costs_[s / 4][s % 4]; }

    template <int X>
    static Floats4 exchanged(const Floats4* values, int i) {  // value 4 i + l to 4 i + l ^ X
        const Floats4 v = values[i ^ (X / 4)];
        constexpr int x = X % 4;
        return MOMOS_SHUFFLE(v, v, x, x ^ 1, x ^ 2, x ^ 3);
    }

    template <int X>
    static void half(const Floats4* from, const float branch[2], Floats4* to, uint8_t* parities) {
        unsigned nibble = 0;
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
            const Floats4 zero = exchanged<X>(from, i) + branch[0];
            const Floats4 one = exchanged<(X ^ kOne)>(from, i) + branch[1];
            to[i] = smaller(one, zero);
            const unsigned less = lanes_below(one, zero);
            if (kVectors == 1) *parities |= uint8_t(X == 0 ? less : less << 4);
            else if (i % 2 == 0) nibble = less;
            else parities[i / 2] = uint8_t(nibble | less << 4);
        }
    }
    template <int X, int kSums>
    void half(const Paths<kSums>& from, const float branch[2], const float errors[2], int to,
              Floats4 (&sums)[kSums][kStates / 4], uint8_t* parities) {
        constexpr int Y = X ^ kOne;
        unsigned nibble = 0;
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
            const Floats4 zero = exchanged<X>(from.costs, i) + branch[0] +
                                 exchanged<X>(from.slopes, i) * errors[0];
            const Floats4 one = exchanged<Y>(from.costs, i) + branch[1] +
                                exchanged<Y>(from.slopes, i) * errors[1];
            costs_[to + i] = smaller(one, zero);
            for (int k = 0; k < kSums; ++k) {
                const Floats4 after_zero = exchanged<X>(from.sums[k], i) + errors[0];
                const Floats4 after_one = exchanged<Y>(from.sums[k], i) + errors[1];
                sums[k][to + i] = one < zero ? after_one : after_zero;
            }
            const unsigned less = lanes_below(one, zero);
            if (kVectors == 1) *parities |= uint8_t(X == 0 ? less : less << 4);
            else if (i % 2 == 0) nibble = less;
            else parities[i / 2] = uint8_t(nibble | less << 4);
        }
    }
#if defined(__SSE2__)
    static Floats4 smaller(Floats4 a, Floats4 b) { return Floats4(_mm_min_ps(__m128(a), __m128(b))); }
    static unsigned lanes_below(Floats4 a, Floats4 b) {
        return unsigned(_mm_movemask_ps(_mm_cmplt_ps(__m128(a), __m128(b))));
    }
#else
    static Floats4 smaller(Floats4 a, Floats4 b) { return a < b ? a : b; }
    static unsigned lanes_below(Floats4 a, Floats4 b) {
        const auto less = a < b;
        return unsigned((less[0] & 1) | (less[1] & 2) | (less[2] & 4) | (less[3] & 8));
    }
#endif

    Floats4 costs_[kStates / 4];
};

// The best path of one stream; tells `costs` what it uses.
template <int V, int kSums, class T>
void find_path(const Steps<T>& steps, Costs& costs, int32_t* values) {
    using Paths = Survivors<V>;
    constexpr int kBytes = V == 3 ? 1 : Paths::kStates / 8;
    std::vector<uint8_t> parities(size_t(steps.count * kBytes)), zeros(size_t(steps.count));
    Paths paths;
    if constexpr (kSums == 0) {
        for (int64_t i = 0; i < steps.count; ++i) {
            const double size = steps.size(i), importance = steps.importance_of(i);
            float branch[4];
            const int zero = weigh(size, importance, 0, costs, branch);
            zeros[size_t(i)] = uint8_t(zero | weigh(size, importance, 1, costs, branch + 2) << 1);
            paths.step(branch, &parities[size_t(i * kBytes)]);
            if (i % 8 == 7) paths.lower();
        }
    } else {
        Tally tallies[kSums];
        Floats4 sums[kSums][Paths::kStates / 4] = {};
        steps.balance.start(tallies, steps.count);
        for (int64_t i = 0; i < steps.count; ++i) {
            const double size = steps.size(i), sign = steps.sign(i);
            double importance = steps.importance_of(i);
            for (Tally& tally : tallies) importance += tally.next();
            float branch[4], errors[4];
            const int zero = weigh(size, importance, 0, costs, branch, errors);
            zeros[size_t(i)] =
                uint8_t(zero | weigh(size, importance, 1, costs, branch + 2, errors + 2) << 1);
            for (float& error : errors) error *= float(sign);
            paths.step(branch, errors, tallies, sums, &parities[size_t(i * kBytes)]);
            for (int k = 0; k < kSums; ++k)
                if (tallies[k].ends())
                    for (Floats4& sum : sums[k]) sum = Floats4{};
            if (i % 8 == 7) paths.lower();
        }
    }
    int state = paths.best();
    for (int64_t i = steps.count; i-- > 0;) {
        const int parity = parities[size_t(i * kBytes + state / 8)] >> (state % 8) & 1;
        state = Paths::before(state, parity);
        const int subset = state & 1;
        const double size = steps.size(i);
        const int zero = zeros[size_t(i)] >> subset & ~parity & 1;
        int64_t index = index_below(size, subset);
        index = (index + ((index ^ parity) & 1)) & (int64_t(zero) - 1);
        costs.see(subset, index);
        values[i] = steps.signed_value(i, int32_t(2 * index - (subset & int(index != 0))));
    }
}

// Without a trellis every weight is on its own.
template <class T>
void find_nearest(const Steps<T>& steps, Costs& costs, int32_t* values) {
    for (int64_t i = 0; i < steps.count; ++i) {
        const double size = steps.size(i), importance = steps.importance_of(i);
        const int64_t below = int64_t(size);
        const double lower = size - double(below), upper = lower - 1;
        const double less = importance * (lower * lower) + costs.of(0, below);
        const double more = importance * (upper * upper) + costs.of(0, below + 1);
        const double none = importance * (size * size) + costs.of(0, 0);
        const int64_t near = below + (more < less);
        const int64_t best = near & -int64_t(!(none < std::min(less, more)));
        costs.see(0, best);
        values[i] = steps.signed_value(i, int32_t(best));
    }
}

// The same if sums of errors count: each number is the best one after those before it.
template <class T>
void find_nearest_balanced(const Steps<T>& steps, Costs& costs, int32_t* values) {
    Tally tallies[2];
    double sums[2] = {};
    const int count = steps.balance.start(tallies, steps.count);
    for (int64_t i = 0; i < steps.count; ++i) {
        const double size = steps.size(i), sign = steps.sign(i);
        double importance = steps.importance_of(i), slope = 0;
        for (int k = 0; k < count; ++k) {
            importance += tallies[k].next();
            slope += sums[k] * double(tallies[k].slope());
        }
        slope *= sign;
        const int64_t below = int64_t(size);
        const double lower = double(below) - size, upper = lower + 1;
        const double less = importance * (lower * lower) + costs.of(0, below) + slope * lower;
        const double more = importance * (upper * upper) + costs.of(0, below + 1) + slope * upper;
        const double none = importance * (size * size) + costs.of(0, 0) - slope * size;
        const int64_t near = below + (more < less && size >= kTiny);
        const int64_t best = near & -int64_t(!(none < std::min(less, more)));
        costs.see(0, best);
        values[i] = steps.signed_value(i, int32_t(best));
        for (int k = 0; k < count; ++k)
            sums[k] = tallies[k].ends() ? 0 : sums[k] + sign * (double(best) - size);
    }
}

template <int V, class T>
void find_path(const Steps<T>& steps, Costs& costs, int32_t* values) {
    switch (steps.balance.sums()) {
        case 0: return find_path<V, 0>(steps, costs, values);
        case 1: return find_path<V, 1>(steps, costs, values);
        default: return find_path<V, 2>(steps, costs, values);
    }
}

template <class T>
void find(const Steps<T>& steps, int memory, Costs& costs, int32_t* values) {
    switch (memory) {
        case 0:
            return steps.balance.sums() ? find_nearest_balanced(steps, costs, values)
                                        : find_nearest(steps, costs, values);
        case 3: return find_path<3>(steps, costs, values);
        case 4: return find_path<4>(steps, costs, values);
        case 5: return find_path<5>(steps, costs, values);
        case 6: return find_path<6>(steps, costs, values);
        default: return find_path<8>(steps, costs, values);
    }
}

template <class T>
double largest_of(const Steps<T>& steps, double rate_weight) {
    double largest = 0;
    for (int64_t i = 0; i < steps.count; ++i) {
        if (!(steps.size(i) <= kMostSteps))
            throw std::invalid_argument("weights must be finite and below 2^31 - 8 steps");
        largest = std::max(largest, steps.size(i));
    }
    for (int64_t i = 0; steps.importance && i < steps.count; ++i)
        if (!(steps.importance[i] >= 0) || !(steps.importance[i] <= 1e20f))
            throw std::invalid_argument("importance must be 0 to 1e20");
    if (!(rate_weight >= 0) || !(rate_weight <= 1e20))
        throw std::invalid_argument("rate_weight must be 0 to 1e20");
    if (!steps.balance.valid())
        throw std::invalid_argument("kernel_weight and row_weight must be 0 to 1e6");
    return largest;
}

// Whole numbers for weights: of half steps on a trellis, of steps without. Each stream of 2^20 has
// a path of its own, and the costs of a sample.
template <class T>
void quantize(const Steps<T>& steps, int memory, double rate_weight, int32_t* values) {
    const Trellis checked(memory);
    const double largest = largest_of(steps, rate_weight);
    Costs costs(int64_t(largest) + 3);
    for (int pass = 1; pass < kPasses && rate_weight > 0; ++pass) {
        const int64_t runs = (steps.count + kRun - 1) / kRun;
        const int64_t stride = std::max<int64_t>(1, runs * kRun / kSample);
        for (int64_t run = 0; run < runs; run += stride) {
            const int64_t begin = run * kRun;
            const int64_t some = std::min(kRun, steps.count - begin);
            find(steps.part(begin, some), memory, costs, values + begin);
        }
        costs.learn(rate_weight);
    }
    for (int64_t begin = 0; begin < steps.count; begin += kMostInStream)
        find(steps.part(begin, std::min(kMostInStream, steps.count - begin)), memory, costs,
             values + begin);
}

}  // namespace momos::lattice
