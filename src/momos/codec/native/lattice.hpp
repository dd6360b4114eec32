// Streams of whole numbers: the values of a mosaic whose motifs are multiples of a step.
//
// A value is a symbol (how many buckets of 2^shift it is from 0, or an escape) and bits that are
// stored as they are. rANS as in rans.hpp: the encoder runs backwards, the decoder must end at 0.
// docs/format.md defines the stream.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "contexts.hpp"
#include "rans.hpp"
#include "trellis.hpp"

namespace momos::lattice {

inline void check(const Geometry& geometry, int64_t count) {
    if (count < 1 || count > kMostInStream)
        throw std::invalid_argument("a stream must have 1 to 2^20 values");
    if (geometry.kernel < 1 || geometry.row < 1 || geometry.row % geometry.kernel)
        throw std::invalid_argument("a row must be a whole number of kernels");
    if (geometry.position < 0) throw std::invalid_argument("a position must be at least 0");
}

// The scale whose start mean is next to the mean of |values|.
inline int choose_scale(const int32_t* values, int64_t count) {
    int64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += std::abs(int64_t(values[i]));
    const int64_t mean = sum / count * 256 + sum % count * 256 / count;
    int scale = 0;
    while (scale < kMostScale && start_mean(scale + 1) <= mean) ++scale;
    return scale;
}

// Words in the order in which the decoder takes them.
class Writer {
  public:
    // A symbol of `share` slots from `begin` on, and at most 16 bits after it.
    void put(uint32_t begin, uint32_t share, uint32_t bits, int count) {
        steps_.push_back(uint64_t(count) << 48 | uint64_t(bits) << 32 | share << 16 | begin);
    }
    void put_bits(uint32_t bits, int count) { put(0, 0, bits, count); }
    void reserve(int64_t count) { steps_.reserve(size_t(count)); }

    std::string bytes(int scale) const {
        std::vector<uint32_t> words;
        uint64_t state = 0;
        for (size_t i = steps_.size(); i-- > 0;) {
            const uint64_t step = steps_[i];
            const uint32_t begin = step & 0xffff, share = step >> 16 & 0xffff;
            const uint32_t bits = step >> 32 & 0xffff, count = uint32_t(step >> 48);
            const uint64_t end = share ? uint64_t(share) << (63 - kSlotBits - count)
                                       : uint64_t(1) << (63 - count);
            if (state >= end) {
                words.push_back(uint32_t(state));
                state >>= 32;
            }
            state = state << count | bits;
            if (share) state = (state / share << kSlotBits) + state % share + begin;
        }
        const int head = words.empty() ? (bit_length(state) + 7) / 8 : 8;
        std::string stream(1, char(scale));
        stream.reserve(size_t(1 + head) + 4 * words.size());
        for (int i = 0; i < head; ++i) stream.push_back(char(state >> (8 * i)));
        for (size_t w = words.size(); w-- > 0;)
            for (int i = 0; i < 4; ++i) stream.push_back(char(words[w] >> (8 * i)));
        return stream;
    }

  private:
    std::vector<uint64_t> steps_;  // 16 bits each: count, bits, share and begin
};

class Reader {
  public:
    Reader(const unsigned char* stream, int64_t size) {
        if (size > 8 && size % 4) throw Corrupt("a stream longer than 8 bytes must be whole words");
        if (0 < size && size <= 8 && stream[size - 1] == 0)
            throw Corrupt("a stream of at most 8 bytes must not end with a zero");
        const int64_t head = std::min<int64_t>(8, size);
        for (int64_t i = 0; i < head; ++i) state_ |= uint64_t(stream[i]) << (8 * i);
        if (size > 8 && state_ < kLow) throw Corrupt("a state before words must be 2^31 at least");
        if (state_ >> 63) throw Corrupt("the state of a stream must be below 2^63");
        next_ = stream + head;
        last_ = stream + size;
    }

    int symbol(const Slots& slots) {
        const uint32_t slot = uint32_t(state_) & ((1u << kSlotBits) - 1);
        const int symbol = slots.symbol(slot);
        const uint32_t begin = slots.begin(symbol);
        state_ = (state_ >> kSlotBits) * (slots.from()[symbol] - begin) + slot - begin;
        return symbol;
    }
    uint32_t bits(int count) {
        const uint32_t taken = uint32_t(state_) & ((1u << count) - 1);
        state_ >>= count;
        if (state_ < kLow && next_ != last_) {
            const uint32_t word = next_[0] | next_[1] << 8 | next_[2] << 16 | uint32_t(next_[3]) << 24;
            next_ += 4;
            state_ = state_ << 32 | word;
        }
        return taken;
    }
    void end() const {
        if (next_ != last_) throw Corrupt("a stream must end with its last symbol");
        if (state_ != 0) throw Corrupt("the state of a stream must end at 0");
    }

  private:
    uint64_t state_ = 0;
    const unsigned char *next_, *last_;
};

inline int64_t bucket(int64_t index, int shift) {
    return (index + (int64_t(1) << shift) - 1) >> shift;
}

inline std::string encode(const int32_t* values, int64_t count, int memory,
                          const Geometry& geometry) {
    check(geometry, count);
    const Trellis trellis(memory);
    const int scale = choose_scale(values, count);
    Predictor predictor(memory, geometry, count, scale);
    const int shift = predictor.shift();
    Writer writer;
    writer.reserve(count + count / 8);
    int state = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t size = std::abs(int64_t(values[i])), subset = trellis.subset(state);
        const int64_t index = trellis.index(size, int(subset));
        if (index < 0 || size > kMostValue)
            throw std::invalid_argument("values must be a path of the trellis");
        const int64_t far = bucket(index, shift);
        const int symbol = int(std::min<int64_t>(far, kEscape));
        const Slots& slots = predictor.shares(int(subset));
        const uint32_t sign = values[i] < 0;
        const uint32_t low = uint32_t(index - 1) & ((1u << shift) - 1);
        const uint32_t begin = slots.begin(symbol), share = slots.share(symbol);
        if (symbol < kEscape) {
            const int some = -int(symbol != 0);
            writer.put(begin, share, (low << 1 | sign) & uint32_t(some), (shift + 1) & some);
        } else {
            writer.put(begin, share, 0, 0);
            const uint32_t excess = uint32_t(far - (kEscape - 1));
            const int length = bit_length(excess) - 1, known = std::min(length, 15);
            const Slots& lengths = predictor.escape_shares();
            const uint32_t rest = excess - (1u << length);
            if (length < 15) {
                writer.put(lengths.begin(known), lengths.share(known), rest, length);
            } else {
                writer.put(lengths.begin(known), lengths.share(known), uint32_t(length - 15), 4);
                writer.put_bits(rest & 0x7fff, 15);
                writer.put_bits(rest >> 15, length - 15);
            }
            predictor.see_escape(known);
            writer.put_bits(low << 1 | sign, shift + 1);
        }
        predictor.see(symbol, size);
        state = trellis.next(state, index);
    }
    return writer.bytes(scale);
}

// The bucket of a value that escapes.
inline int64_t read_escape(Reader& reader, Predictor& predictor) {
    reader.bits(0);
    int length = reader.symbol(predictor.escape_shares());
    predictor.see_escape(length);
    int64_t rest;
    if (length < 15) {
        rest = reader.bits(length);
    } else {
        length += int(reader.bits(4));
        rest = reader.bits(15);
        rest |= int64_t(reader.bits(length - 15)) << 15;
    }
    return kEscape - 1 + (int64_t(1) << length) + rest;
}

inline void decode(const unsigned char* stream, int64_t size, int32_t* values, int64_t count,
                   int memory, const Geometry& geometry) {
    check(geometry, count);
    const Trellis trellis(memory);
    if (size < 1) throw Corrupt("a stream must have a byte at least");
    if (stream[0] > kMostScale) throw Corrupt("the scale of a stream must be at most 148");
    Predictor predictor(memory, geometry, count, stream[0]);
    const int shift = predictor.shift();
    const int64_t width = int64_t(1) << shift;
    Reader reader(stream + 1, size - 1);
    int state = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int subset = trellis.subset(state);
        const int symbol = reader.symbol(predictor.shares(subset));
        int64_t far = symbol;
        if (symbol == kEscape) far = read_escape(reader, predictor);
        // No branches: signs and zeros cannot be foreseen.
        const uint32_t bits = reader.bits(-int(symbol != 0) & (shift + 1));
        const int64_t index = ((far - 1) * width + (bits >> 1) + 1) & -int64_t(symbol != 0);
        const int64_t value = trellis.size(index, subset), sign = bits & 1;
        if (value > kMostValue) throw Corrupt("a value must be below 2^31");
        values[i] = int32_t((value ^ -sign) + sign);
        predictor.see(symbol, value);
        state = trellis.next(state, index);
    }
    reader.end();
}

// Whether the values of one stream are a path of the trellis.
inline bool fits(const int32_t* values, int64_t count, int memory) {
    const Trellis trellis(memory);
    int state = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t size = std::abs(int64_t(values[i]));
        const int64_t index = trellis.index(size, trellis.subset(state));
        if (index < 0 || size > kMostValue) return false;
        state = trellis.next(state, index);
    }
    return true;
}

}  // namespace momos::lattice
