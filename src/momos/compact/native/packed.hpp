// Indices of 4, 8, 12, 16 or 32 bits, packed as in bitpack.py, and blocks decoded from them.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../vq/native/parallel.hpp"

namespace momos {

// Index number i. Reads no byte beyond the last pair.
template <int kBits>
inline uint32_t index_at(const uint8_t* packed, int64_t i) {
    if constexpr (kBits == 4) return packed[i >> 1] >> (4 * (i & 1)) & 15;
    if constexpr (kBits == 8) return packed[i];
    if constexpr (kBits == 12) {
        const uint8_t* at = packed + (i >> 1) * 3 + (i & 1);
        return i & 1 ? uint32_t(at[0]) >> 4 | uint32_t(at[1]) << 4
                     : uint32_t(at[0]) | uint32_t(at[1] & 15) << 8;
    }
    if constexpr (kBits == 16) {
        uint16_t value;
        std::memcpy(&value, packed + 2 * i, 2);
        return value;
    }
    uint32_t value;
    std::memcpy(&value, packed + 4 * i, 4);
    return value;
}

inline int64_t packed_bytes(int64_t count, int bits) {
    return bits % 8 ? (count + 1) / 2 * (bits / 4) : count * (bits / 8);
}

// Calls work with the number of bits as a constant; false for a number of bits there is not.
template <class Work>
bool with_bits(int bits, const Work& work) {
    switch (bits) {
        case 4: work(std::integral_constant<int, 4>{}); return true;
        case 8: work(std::integral_constant<int, 8>{}); return true;
        case 12: work(std::integral_constant<int, 12>{}); return true;
        case 16: work(std::integral_constant<int, 16>{}); return true;
        case 32: work(std::integral_constant<int, 32>{}); return true;
    }
    return false;
}

// Blocks first ... first + count - 1 of motifs of kWidth bytes (0: of `width`, which is not known
// when this is compiled). False if an index names no motif; its block is left out.
template <int kBits, int kWidth>
bool decode_piece(const char* motifs, int64_t num_motifs, int64_t width, const uint8_t* packed,
                  int64_t first, int64_t count, char* out) {
    const int64_t size = kWidth ? kWidth : width;
    bool good = true;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t index = index_at<kBits>(packed, first + i);
        if (index >= num_motifs) {
            good = false;
            continue;
        }
        std::memcpy(out + i * size, motifs + index * size, kWidth ? kWidth : size);
    }
    return good;
}

template <int kBits>
bool decode(const char* motifs, int64_t num_motifs, int64_t width, const uint8_t* packed,
            int64_t first, int64_t count, char* out, int num_threads) {
    std::atomic<bool> good{true};
    for_pieces(count, 1 << 15, num_threads, [&](int64_t begin, int64_t end) {
        auto piece = [&](auto constant) {
            return decode_piece<kBits, decltype(constant)::value>(
                motifs, num_motifs, width, packed, first + begin, end - begin, out + begin * width);
        };
        bool own;
        switch (width) {
            case 2: own = piece(std::integral_constant<int, 2>{}); break;
            case 4: own = piece(std::integral_constant<int, 4>{}); break;
            case 8: own = piece(std::integral_constant<int, 8>{}); break;
            case 16: own = piece(std::integral_constant<int, 16>{}); break;
            case 32: own = piece(std::integral_constant<int, 32>{}); break;
            default: own = piece(std::integral_constant<int, 0>{});
        }
        if (!own) good = false;
    });
    return good;
}

}  // namespace momos
