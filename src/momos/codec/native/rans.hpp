// Range asymmetric numeral systems (Duda 2013): symbols to a stream and back.
//
// One state of 63 bits, 32 bits moved at a time. The encoder starts at 0 and runs backwards, so
// the decoder runs forwards and must end at 0; short streams carry no more than their state.
// docs/format.md defines the stream.
#pragma once
#include <cmath>
#include <cstring>
#include <string>

#include "table.hpp"

namespace momos {

constexpr uint64_t kLow = uint64_t(1) << 31;  // a state below this takes in a word, if one is left
constexpr int64_t kMostInStream = int64_t(1) << 20;

struct Corrupt : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Which symbol a slot belongs to. The slot's leading bits name a range of symbols; most ranges
// hold one.
class Slots {
  public:
    void build(const Table& table) {
        table_ = &table;
        const int64_t count = int64_t(table.cum.size()) - 1;
        const int leading = std::min(table.bits, std::max(14, table.bits - 7));
        shift_ = table.bits - leading;
        first_.resize((size_t(1) << leading) + 1);
        int64_t bucket = 0;
        for (int64_t j = 0; j < count; ++j) {
            const int64_t end = (int64_t(table.cum[j + 1]) - 1) >> shift_;
            if (table.cum[j + 1] == table.cum[j]) continue;
            for (; bucket <= end; ++bucket) first_[bucket] = uint32_t(j);
        }
        first_[bucket] = uint32_t(count - 1);
    }

    uint32_t symbol(uint32_t slot) const {
        const uint32_t* cum = table_->cum.data();
        uint32_t low = first_[slot >> shift_];
        if (shift_ == 0 || slot < cum[low + 1]) return low;
        uint32_t high = first_[(slot >> shift_) + 1];  // the symbol is not behind this one
        while (high - low > 8) {
            const uint32_t middle = low + (high - low) / 2;
            if (cum[middle + 1] <= slot) low = middle + 1;
            else high = middle;
        }
        while (cum[low + 1] <= slot) ++low;
        return low;
    }

  private:
    const Table* table_ = nullptr;
    int shift_ = 0;
    std::vector<uint32_t> first_;
};

template <class T>
void check_symbols(const Model& model, const T* symbols, int64_t count) {
    if (count > kMostInStream) throw std::invalid_argument("a stream holds 2^20 symbols at most");
    for (int64_t i = 0; i < count; ++i)
        if (uint64_t(symbols[i]) >= uint64_t(model.size()) || !model.weights[symbols[i]])
            throw std::invalid_argument("symbols must have a weight above 0");
}

template <class T>
std::string encode(const Model& model, const T* symbols, int64_t count, int rate) {
    check_symbols(model, symbols, count);
    Learner learner(model, rate);
    std::vector<Table> tables;
    std::vector<int64_t> starts;
    for (int64_t start = 0; start < count;) {
        const int64_t stop = learner.stop(count);
        starts.push_back(start);
        if (rate) {
            tables.push_back(learner.table());
            if (stop < count) learner.learn(symbols + start, stop - start);
        }
        start = stop;
    }
    std::vector<uint32_t> words;
    uint64_t state = 0;
    for (int64_t end = count; !starts.empty(); end = starts.back(), starts.pop_back()) {
        const Table& table = rate ? tables[starts.size() - 1] : model.start;
        const uint32_t* cum = table.cum.data();
        const int bits = table.bits;
        for (int64_t i = end; i-- > starts.back();) {
            const uint64_t begin = cum[symbols[i]], share = cum[symbols[i] + 1] - begin;
            if (state >= share << (63 - bits)) {
                words.push_back(uint32_t(state));
                state >>= 32;
            }
            state = ((state / share) << bits) + state % share + begin;
        }
    }
    const int head = words.empty() ? (bit_length(state) + 7) / 8 : 8;
    std::string stream(head + 4 * words.size(), '\0');
    for (int i = 0; i < head; ++i) stream[i] = char(state >> (8 * i));
    for (size_t w = 0; w < words.size(); ++w)
        for (int i = 0; i < 4; ++i)
            stream[head + 4 * w + i] = char(words[words.size() - 1 - w] >> (8 * i));
    return stream;
}

// `starting` are the slots of the table that streams start from.
template <class T>
void decode(const Model& model, const Slots& starting, const unsigned char* stream, int64_t size, int rate, T* symbols,
            int64_t count) {
    if (count > kMostInStream) throw std::invalid_argument("a stream holds 2^20 symbols at most");
    if (size > 8 && size % 4) throw Corrupt("a stream longer than 8 bytes must be whole words");
    if (0 < size && size <= 8 && stream[size - 1] == 0)
        throw Corrupt("a stream of at most 8 bytes must not end with a zero");
    uint64_t state = 0;
    const int64_t head = std::min<int64_t>(8, size);
    for (int64_t i = 0; i < head; ++i) state |= uint64_t(stream[i]) << (8 * i);
    if (size > 8 && state < kLow) throw Corrupt("a state before words must be 2^31 at least");
    if (state >> 63) throw Corrupt("the state of a stream must be below 2^63");
    const unsigned char *next = stream + head, *last = stream + size;
    Learner learner(model, rate);
    Slots own;
    for (int64_t start = 0; start < count;) {
        const Table& table = learner.table();
        if (start) own.build(table);
        const Slots& slots = start ? own : starting;
        const uint32_t* cum = table.cum.data();
        const int bits = table.bits;
        const uint64_t mask = (uint64_t(1) << bits) - 1;
        const int64_t stop = learner.stop(count);
        for (int64_t i = start; i < stop; ++i) {
            const uint32_t slot = uint32_t(state & mask), symbol = slots.symbol(slot);
            const uint32_t begin = cum[symbol];
            state = (state >> bits) * (cum[symbol + 1] - begin) + (slot - begin);
            if (state < kLow && next != last) {
                uint32_t word = 0;
                for (int b = 0; b < 4; ++b) word |= uint32_t(next[b]) << (8 * b);
                next += 4;
                state = state << 32 | word;
            }
            symbols[i] = T(symbol);
        }
        if (stop < count) learner.learn(symbols + start, stop - start);
        start = stop;
    }
    if (next != last) throw Corrupt("a stream must end with its last symbol");
    if (state != 0) throw Corrupt("the state of a stream must end at 0");
}

// About how many bits the stream would have.
template <class T>
double cost(const Model& model, const T* symbols, int64_t count, int rate) {
    check_symbols(model, symbols, count);
    Learner learner(model, rate);
    std::vector<uint32_t> counts(model.size());
    double bits = 0;
    for (int64_t start = 0; start < count;) {
        const int64_t stop = learner.stop(count);
        const Table& table = learner.table();
        if (stop - start < model.size()) {
            for (int64_t i = start; i < stop; ++i)
                bits += table.bits - std::log2(double(table.share(symbols[i])));
        } else {
            std::fill(counts.begin(), counts.end(), 0);
            for (int64_t i = start; i < stop; ++i) ++counts[symbols[i]];
            for (int64_t j = 0; j < model.size(); ++j)
                if (counts[j]) bits += counts[j] * (table.bits - std::log2(double(table.share(j))));
        }
        if (stop < count) learner.learn(symbols + start, stop - start);
        start = stop;
    }
    return bits;
}

}  // namespace momos
