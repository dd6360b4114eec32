// Shares of the next symbol of a stream of whole numbers, by how large its neighbours are.
//
// Four contexts each choose a table of counts; the shares of the next symbol are the mixture of
// the four tables, and the mixture learns which context predicts best. Integers throughout:
// docs/format.md defines every step, and any other rounding would be another format.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace momos::lattice {

constexpr int kSlotBits = 15;
constexpr int kSymbols = 16;
constexpr int kEscape = kSymbols - 1;
constexpr int kContexts = 4;
constexpr int kLevels = 44;         // of means up to 127
constexpr int kStartZero = 1 << 14, kStartBend = 5, kHaste = 3;
constexpr int kMostInMean = 250;   // values, beyond which a mean forgets
constexpr int kStep = 16;          // what one occurrence adds to a count
constexpr int kFirst = 13;         // occurrences that a table starts with
constexpr int kMostSeen = 800;     // occurrences at which the counts of a table are halved
constexpr int kMostScale = 148;    // a start mean of 2^31 and more
constexpr int64_t kUnit = int64_t(1) << 16;  // 1 as a mean and as a weight of a context
constexpr uint32_t kWhole = 1 << 16;         // all weights together
constexpr int kMostMixed = (1 << kSlotBits) - kSymbols;  // so that every symbol has a slot
constexpr uint32_t kLeastWeight = 64;       // of a context, on top of what it earned
constexpr uint32_t kEarned = kWhole - kContexts * kLeastWeight;

// Where a stream's first value lies: rows of `row` values (the weights of one output channel), of
// which each `kernel` belong to one input.
struct Geometry {
    int64_t row, kernel, position;
};

using Eight = uint16_t __attribute__((vector_size(16)));
using Four = int32_t __attribute__((vector_size(16)));
using Floats = float __attribute__((vector_size(16)));

// ⌊2^30 / (16 n)⌋, and how far a mean moves towards a value after n others.
struct Reciprocals {
    uint32_t of[kMostSeen + 1];
    int32_t rate[kMostInMean + 1];
    Reciprocals() {
        of[0] = 0;
        for (int n = 0; n <= kMostInMean; ++n) rate[n] = 65536 / (n + 5);
        for (int n = 1; n <= kMostSeen; ++n) of[n] = (uint32_t(1) << 30) / uint32_t(kStep * n);
    }
};
inline const Reciprocals kReciprocals;

// What one more of each symbol adds to the counts.
struct Additions {
    Eight halves[kSymbols][2];
    Additions() {
        for (int symbol = 0; symbol < kSymbols; ++symbol)
            for (int a = 0; a < kSymbols; ++a)
                halves[symbol][a / 8][a % 8] = uint16_t(a <= symbol ? kStep : 0);
    }
};
inline const Additions kAdditions;

// How many values at and above each symbol were seen; the first number is all of them. One fills
// a line of the cache, with what its next use needs.
struct alignas(64) Counts {
    Eight halves[2];
    uint16_t none[2] = {};  // at and above symbol 16
    uint32_t reciprocal;    // of all of them

    uint16_t* data() { return reinterpret_cast<uint16_t*>(this); }
    const uint16_t* data() const { return reinterpret_cast<const uint16_t*>(this); }
    uint32_t total() const { return data()[0]; }
    uint32_t of(int symbol) const {
        return uint32_t(data()[symbol]) - uint32_t(data()[symbol + 1]);
    }
    [[gnu::always_inline]] void see(int symbol) {
        const uint32_t seen = total() / kStep + 1;
        halves[0] += kAdditions.halves[symbol][0];
        halves[1] += kAdditions.halves[symbol][1];
        reciprocal = kReciprocals.of[seen];
        if (__builtin_expect(seen == kMostSeen, 0)) {
            halves[0] -= halves[0] >> 1;
            halves[1] -= halves[1] >> 1;
            reciprocal = kReciprocals.of[total() / kStep];
        }
    }
    // Fills the counts by a geometric law: the ratio of the shares of 1 and 2 is `ratio`, and
    // that of each later pair smaller by `bend`; the share of 0 is `zero` to that of 1's 2^16.
    void start(int64_t zero, int64_t ratio, int64_t bend) {
        int64_t weights[kSymbols] = {zero, ratio}, sum = zero + ratio, above = 0;
        for (int a = 2; a < kSymbols; ++a) {
            ratio = std::max<int64_t>(ratio - bend, 0);
            sum += weights[a] = (weights[a - 1] * ratio) >> 16;
        }
        for (int a = kSymbols; a-- > 0;) {
            above += weights[a];
            data()[a] = uint16_t(above * (kStep * kFirst) / sum);
        }
        reciprocal = kReciprocals.of[kFirst];
    }
};

// The slots of symbol a are from[a + 1] to from[a] - 1.
struct alignas(32) Slots {
    Eight halves[2];
    uint16_t none = 0;  // of symbol 16 on

    const uint16_t* from() const { return reinterpret_cast<const uint16_t*>(this); }
    uint32_t begin(int symbol) const { return from()[symbol + 1]; }
    uint32_t share(int symbol) const { return from()[symbol] - begin(symbol); }
    int symbol(uint32_t slot) const {
#if defined(__SSE2__)
        const __m128i value = _mm_set1_epi16(short(slot));
        const __m128i low = _mm_cmpgt_epi16(__m128i(halves[0]), value);
        const __m128i high = _mm_cmpgt_epi16(__m128i(halves[1]), value);
        return 31 - __builtin_clz(unsigned(_mm_movemask_epi8(_mm_packs_epi16(low, high))) | 1);
#else
        int above = 0;
        for (int a = 1; a < kSymbols; ++a) above += slot < from()[a];
        return above;
#endif
    }
    // The mixture of four tables, each times its factor.
    void mix(const Counts* const* tables, const uint32_t factors[kContexts]) {
#if defined(__SSE2__)
        constexpr Eight least[] = {{16, 15, 14, 13, 12, 11, 10, 9}, {8, 7, 6, 5, 4, 3, 2, 1}};
        const __m128i first = _mm_set1_epi32(int(factors[0] | factors[1] << 16));
        const __m128i second = _mm_set1_epi32(int(factors[2] | factors[3] << 16));
        const auto sum = [&](__m128i a, __m128i b) {
            return _mm_srli_epi32(
                _mm_add_epi32(_mm_madd_epi16(a, first), _mm_madd_epi16(b, second)), 7);
        };
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const __m128i a = __m128i(tables[0]->halves[half]), b = __m128i(tables[1]->halves[half]),
                          c = __m128i(tables[2]->halves[half]), d = __m128i(tables[3]->halves[half]);
            const __m128i low = sum(_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
            const __m128i high = sum(_mm_unpackhi_epi16(a, b), _mm_unpackhi_epi16(c, d));
            const __m128i most = _mm_set1_epi16(kMostMixed);
            Eight mixed = Eight(_mm_min_epi16(_mm_packs_epi32(low, high), most)) + least[half];
            if (half == 0) mixed[0] = uint16_t(1) << kSlotBits;
            halves[half] = mixed;
        }
#else
        uint16_t* from = reinterpret_cast<uint16_t*>(halves);
        const uint16_t *first = tables[0]->data(), *second = tables[1]->data(),
                       *third = tables[2]->data(), *fourth = tables[3]->data();
        for (int a = 0; a < kSymbols; ++a) {
            const uint32_t sum = first[a] * factors[0] + second[a] * factors[1] +
                                 third[a] * factors[2] + fourth[a] * factors[3];
            from[a] = uint16_t(std::min<uint32_t>(sum >> 7, kMostMixed) + uint32_t(kSymbols - a));
        }
        from[0] = uint16_t(1) << kSlotBits;
#endif
    }
};

// What a table of `total` is multiplied by to have `weight` in a mixture.
inline uint32_t factor(uint32_t weight, uint32_t reciprocal) {
    return uint32_t((uint64_t(weight) * reciprocal + (1 << 23)) >> 24);
}

// A mean that starts from one value as if it had been seen four times, and forgets slowly.
struct Mean {
    int64_t value;
    uint32_t count = 0;

    void see(int64_t x) {
        value += ((x - value) * kReciprocals.rate[count]) >> 16;
        count += count < kMostInMean;
    }
};

inline int64_t start_mean(int scale) {  // in 1/256
    return int64_t(4 + (scale & 3)) << (scale >> 2);
}

// What is known before each value of a stream: shares of its symbol.
class Predictor {
  public:
    Predictor(int memory, const Geometry& geometry, int64_t count, int scale)
        : trellis_(memory > 0), geometry_(geometry), column_(geometry.position % geometry.row) {
        const int64_t mean = start_mean(scale);
        while (shift_ < kSlotBits && (mean >> (shift_ + trellis_)) > 5 * 256) ++shift_;
        start_ = std::min((mean << 8) >> (shift_ + trellis_), 127 * kUnit);
        row_.value = left_ = start_;
        inputs_in_row_ = geometry.row / geometry.kernel;
        columns_.assign(size_t(std::min(geometry.row, count)), Column{{start_}, start_, start_});
        inputs_.assign(size_t(std::min(inputs_in_row_, count + 2)), Mean{start_});
        input_ = column_ / geometry.kernel % int64_t(inputs_.size());
        in_input_ = column_ % geometry.kernel;
        for (int level = 0; level < kLevels; ++level) {
            const int64_t m = std::max<int64_t>(
                ((int64_t(9 + 2 * (level & 3)) << (1 + (level >> 2))) - 16), 1);
            const int64_t ratio = (m << 16) / (m + 230);
            Counts first;
            first.start(kStartZero, ratio, (65536 - ratio) >> kStartBend);
            for (int j = 0; j < 2 * kContexts; ++j) tables_[j * kLevels + level] = first;
        }
        escapes_.start(1 << 16, 36000, 0);
    }

    int shift() const { return shift_; }

    // The shares of the next symbol, of a value of `subset`.
    [[gnu::always_inline]] const Slots& shares(int subset) {
        const Column& column = columns_[size_t(at_)];
        const Four levels = level(Four{
            int32_t(row_.value + left_) >> 9,
            int32_t(3 * column.mean.value + inputs_[size_t(input_)].value) >> 10,
            int32_t(left_) >> 8, int32_t(column.above + column.above2) >> 9});
        Counts* const tables = tables_ + subset * kLevels;
#pragma GCC unroll 4
        for (int j = 0; j < kContexts; ++j) {
            chosen_[j] = tables + (2 * j * kLevels + levels[j]);
            factors_[j] = factor(weights_[j] + kLeastWeight, chosen_[j]->reciprocal);
        }
        slots_.mix(chosen_, factors_);
        return slots_;
    }

    // The shares of the length of what escapes.
    const Slots& escape_shares() {
        const Counts* tables[kContexts] = {&escapes_, &escapes_, &escapes_, &escapes_};
        const uint32_t factors[kContexts] = {factor(kWhole, escapes_.reciprocal), 0, 0, 0};
        slots_.mix(tables, factors);
        return slots_;
    }
    void see_escape(int length) { escapes_.see(length); }

    // Learns the symbol and the size |v| of the value that shares() foresaw.
    [[gnu::always_inline]] void see(int symbol, int64_t size) {
        uint64_t parts[kContexts], sum = 0;
#pragma GCC unroll 4
        for (int j = 0; j < kContexts; ++j) {
            parts[j] = uint64_t(chosen_[j]->of(symbol)) * factors_[j] + 1;
            sum += parts[j];
        }
        const uint64_t inverse = (uint64_t(kEarned) << 24) / sum;
#pragma GCC unroll 4
        for (int j = 0; j < kContexts; ++j) {
            const int32_t earned = int32_t((parts[j] * inverse) >> 24), known = int32_t(learned_[j]);
            weights_[j] = learned_[j];
            learned_[j] = uint32_t(known + ((earned - known) >> kHaste));
            chosen_[j]->see(symbol);
        }
        const int64_t x = std::min((size << 16) >> (shift_ + trellis_), 127 * kUnit);
        Column& column = columns_[size_t(at_)];
        row_.see(x);
        column.mean.see(x);
        inputs_[size_t(input_)].see(x);
        column.above2 = column.above;
        column.above = x;
        left_ += (3 * (x - left_)) >> 3;
        advance();
    }

  private:
    struct Column {
        Mean mean;
        int64_t above, above2;
    };

    // Quarters of an octave of means in 1/256: the exponent and two more bits of a float32, which
    // holds whole numbers below 2^24 exactly.
    static Four level(Four means) {
        const auto floats = __builtin_convertvector(means + 16, Floats);
        return (Four(floats) >> 21) - ((127 + 4) << 2);
    }

    void advance() {
        if (++at_ == int64_t(columns_.size())) at_ = 0;
        if (++in_input_ == geometry_.kernel) {
            in_input_ = 0;
            if (++input_ == int64_t(inputs_.size())) input_ = 0;
        }
        if (++column_ == geometry_.row) {
            column_ = 0;
            row_ = Mean{start_};
        }
    }

    const int trellis_;
    const Geometry geometry_;
    int shift_ = 0;
    int64_t start_ = 0, inputs_in_row_, column_, at_ = 0, input_, in_input_, left_;
    Mean row_;
    std::vector<Column> columns_;
    std::vector<Mean> inputs_;
    Counts tables_[kContexts * 2 * kLevels], escapes_;
    // What the contexts earned, and what they had earned a value earlier: a decoder need not wait.
    uint32_t learned_[kContexts] = {kEarned / 4, kEarned / 4, kEarned / 4, kEarned / 4};
    uint32_t weights_[kContexts] = {kEarned / 4, kEarned / 4, kEarned / 4, kEarned / 4};
    uint32_t factors_[kContexts];
    Counts* chosen_[kContexts];
    Slots slots_;
};

}  // namespace momos::lattice
