// From weights of symbols to their shares of 2^bits slots, by integers alone.
//
// docs/format.md defines both steps; any other rounding would be another format.
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace momos {

constexpr uint64_t kMostWeight = uint64_t(1) << 56;  // all weights of a table together
constexpr int64_t kMostSymbols = int64_t(1) << 28;

inline int bit_length(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }

// Precision of a table: 64 slots for each symbol of an alphabet, on average at least.
inline int precision(int64_t num_symbols) {
    return std::min(28, bit_length(uint64_t(num_symbols - 1)) + 6);
}

// The slots of symbol j are cum[j] to cum[j + 1] - 1; a symbol of weight 0 has none.
struct Table {
    int bits = 0;
    std::vector<uint32_t> cum;

    uint32_t share(int64_t j) const { return cum[j + 1] - cum[j]; }
};

inline void fill(Table& table, const std::vector<uint64_t>& weights) {
    const int64_t count = int64_t(weights.size());
    uint64_t total = 0;
    for (const uint64_t weight : weights) total += weight;
    const int bits = precision(count);
    int shift = std::max(0, bit_length(total) - bits - 2);
    uint64_t sum;
    for (;; ++shift) {  // the smallest shift at which the rounded weights fit
        const uint64_t half = (uint64_t(1) << shift) >> 1;
        sum = 0;
        for (const uint64_t weight : weights)
            sum += weight ? std::max<uint64_t>(1, (weight + half) >> shift) : 0;
        if (sum <= uint64_t(1) << bits) break;
    }
    table.bits = bits;
    table.cum.resize(count + 1);
    const uint64_t half = (uint64_t(1) << shift) >> 1;
    uint64_t before = 0;
    for (int64_t j = 0; j < count; ++j) {
        table.cum[j] = uint32_t((before << bits) / sum);
        before += weights[j] ? std::max<uint64_t>(1, (weights[j] + half) >> shift) : 0;
    }
    table.cum[count] = uint32_t(1) << bits;
}

// Checked weights, and the table that every stream starts from.
struct Model {
    std::vector<uint64_t> weights;
    Table start;

    Model(const uint64_t* values, int64_t count) : weights(values, values + count) {
        if (count < 1 || count > kMostSymbols)
            throw std::invalid_argument("an alphabet must have 1 to 2^28 symbols");
        uint64_t total = 0;
        for (const uint64_t weight : weights) {
            if (weight >= kMostWeight || (total += weight) >= kMostWeight)
                throw std::invalid_argument("weights must sum to less than 2^56");
        }
        if (total == 0) throw std::invalid_argument("one weight at least must be above 0");
        fill(start, weights);
    }
    int64_t size() const { return int64_t(weights.size()); }
};

// Where a stream's next table begins: after 64 symbols or a quarter of the alphabet, then each
// time half as far again.
inline int64_t first_stop(int64_t num_symbols) { return std::max<int64_t>(64, num_symbols / 4); }
inline int64_t next_stop(int64_t stop) { return stop + stop / 2; }

// Learns a stream's own counts. Rate 0 learns nothing; rate e adds 2^(e-1) for each occurrence.
class Learner {
  public:
    Learner(const Model& model, int rate) : model_(model), rate_(rate) {
        if (rate < 0 || rate > 31) throw std::invalid_argument("rate must be 0 to 31");
    }

    int64_t stop(int64_t end) const { return rate_ == 0 ? end : std::min(end, stop_); }

    const Table& table() const { return own_.cum.empty() ? model_.start : own_; }

    template <class T>
    void learn(const T* symbols, int64_t count) {
        if (weights_.empty()) weights_ = model_.weights;
        const uint64_t step = uint64_t(1) << (rate_ - 1);
        for (int64_t i = 0; i < count; ++i) weights_[symbols[i]] += step;
        stop_ = next_stop(stop_);
        fill(own_, weights_);
    }

  private:
    const Model& model_;
    const int rate_;
    int64_t stop_ = first_stop(model_.size());
    std::vector<uint64_t> weights_;
    Table own_;
};

}  // namespace momos
