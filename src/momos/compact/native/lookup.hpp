// Products of a few inputs with a weight of packed blocks, without decoding the weight.
//
// y[r, o] = sum over input blocks j of T[r, j, index[o, j]], where T[r, j, c] is the product of
// block j of input r with motif c. T is computed once and serves all rows of the weight: s times
// fewer additions than the dense product, and no multiplication. Tables are taken in tiles that fit
// the first-level cache (one input) or the second (as many inputs as a vector has lanes).
// The order of additions depends on neither the number of threads nor the other inputs.
#pragma once
#include <limits>
#include <vector>

#include "../../vq/native/lanes.hpp"
#include "packed.hpp"

namespace momos {

struct Product {
    const float* inputs;  // (num_inputs, num_blocks * block_size)
    const float* motifs;  // (num_motifs, block_size)
    const uint8_t* packed;  // rows of num_blocks indices, one row after another, whole bytes each
    float* outputs;  // (num_inputs, num_rows)
    int64_t num_inputs, num_blocks, num_rows, num_motifs;
    int block_size, num_threads;
};

// Rows that share the tables of one thread. More would no longer fit its cache.
constexpr int64_t kFewestRows = 256, kMostRows = 4096;

// Motif values by position and then motif; motifs that do not exist are NaN, so that an index
// which names none shows.
inline std::vector<float> by_position(const Product& p, int64_t entries) {
    std::vector<float> result(entries * p.block_size, std::numeric_limits<float>::quiet_NaN());
    for (int64_t c = 0; c < p.num_motifs; ++c)
        for (int t = 0; t < p.block_size; ++t)
            result[t * entries + c] = p.motifs[c * p.block_size + t];
    return result;
}

// Adds kCount table entries for each of kRows rows, `stride` bytes apart, to the sums.
template <int kBits, int kCount, int kRows>
inline void add_rows(const float* table, const uint8_t* rows, int64_t stride, float* sums) {
    constexpr int kEntries = 1 << kBits, kStep = 64 / kBits;
    float even[kRows]{}, odd[kRows]{};
    for (int j = 0; j < kCount; j += kStep) {
        uint64_t words[kRows];
        for (int r = 0; r < kRows; ++r)
            std::memcpy(&words[r], rows + r * stride + j * kBits / 8, 8);
#pragma GCC unroll 16
        for (int i = 0; i < kStep; i += 2)
#pragma GCC unroll 4
            for (int r = 0; r < kRows; ++r) {
                even[r] += table[(j + i) * kEntries + (words[r] >> (kBits * i) & (kEntries - 1))];
                odd[r] += table[(j + i + 1) * kEntries +
                                (words[r] >> (kBits * i + kBits) & (kEntries - 1))];
            }
    }
    for (int r = 0; r < kRows; ++r) sums[r] += even[r] + odd[r];
}

// Rows begin ... end - 1 for one input. Each thread makes its own tables, in its own cache.
template <int kBits>
void lookup_one(const Product& p, const std::vector<float>& motifs, int64_t begin, int64_t end) {
    constexpr int64_t kEntries = 1 << kBits;
    constexpr int kTile = kBits == 8 ? 16 : 128;
    alignas(64) float table[kTile * kEntries];
    float* y = p.outputs;
    std::fill(y + begin, y + end, 0.0f);
    const int64_t stride = p.num_blocks * kBits / 8;
    for (int64_t tile = 0; tile < p.num_blocks; tile += kTile) {
        const int64_t count = std::min<int64_t>(kTile, p.num_blocks - tile);
        for (int64_t j = 0; j < count; ++j)
            for (int64_t c = 0; c < kEntries; c += kLanes) {
                Lanes sum{};
                for (int t = 0; t < p.block_size; ++t) {
                    Lanes values;
                    std::memcpy(&values, &motifs[t * kEntries + c], sizeof values);
                    sum = add_product(sum, broadcast(p.inputs[(tile + j) * p.block_size + t]),
                                      values);
                }
                std::memcpy(&table[j * kEntries + c], &sum, sizeof sum);
            }
        int64_t o = begin;
        const uint8_t* at = p.packed + begin * stride + tile * kBits / 8;
        if (count == kTile) {
            for (; o + 4 <= end; o += 4, at += 4 * stride) {
                for (int r = 8; r < 12; ++r) __builtin_prefetch(at + r * stride);
                add_rows<kBits, kTile, 4>(table, at, stride, y + o);
            }
            for (; o < end; ++o, at += stride)  // in the same order of additions
                add_rows<kBits, kTile, 1>(table, at, stride, y + o);
        }
        for (; o < end; ++o)
            for (int64_t j = 0; j < count; ++j)
                y[o] += table[j * kEntries + index_at<kBits>(p.packed + o * stride, tile + j)];
    }
}

// The same for as many inputs as there are lanes, side by side in each entry of the table.
template <int kBits>
void lookup_many(const Product& p, int64_t first, int64_t begin, int64_t end) {
    constexpr int64_t kEntries = 1 << kBits;
    constexpr int kTile = kBits == 8 ? 16 : 64;
    const int64_t width = p.num_blocks * p.block_size, stride = p.num_blocks * kBits / 8;
    const int count = int(std::min<int64_t>(kLanes, p.num_inputs - first));
    static thread_local std::vector<Row> table, sums, own;
    table.resize(kTile * kEntries);
    own.resize(p.block_size);
    sums.assign(end - begin, Row{Lanes{}});
    for (int64_t tile = 0; tile < p.num_blocks; tile += kTile) {
        const int64_t stop = std::min<int64_t>(tile + kTile, p.num_blocks);
        for (int64_t j = tile; j < stop; ++j) {
            for (int t = 0; t < p.block_size; ++t) {
                own[t].lanes = Lanes{};
                for (int r = 0; r < count; ++r)
                    own[t].lanes[r] = p.inputs[(first + r) * width + j * p.block_size + t];
            }
            for (int64_t c = 0; c < kEntries; ++c) {
                Lanes sum = broadcast(c < p.num_motifs ? 0.0f
                                                       : std::numeric_limits<float>::quiet_NaN());
                if (c < p.num_motifs)
                    for (int t = 0; t < p.block_size; ++t)
                        sum = add_product(sum, broadcast(p.motifs[c * p.block_size + t]),
                                          own[t].lanes);
                table[(j - tile) * kEntries + c].lanes = sum;
            }
        }
        const Row* entries = table.data();
        for (int64_t o = begin; o < end; ++o) {
            const uint8_t* row = p.packed + o * stride;
            __builtin_prefetch(row + 8 * stride + tile * kBits / 8);
            Lanes even = sums[o - begin].lanes, odd{};
            int64_t j = tile;
            for (; j + 1 < stop; j += 2) {
                even += entries[(j - tile) * kEntries + index_at<kBits>(row, j)].lanes;
                odd += entries[(j + 1 - tile) * kEntries + index_at<kBits>(row, j + 1)].lanes;
            }
            if (j < stop) even += entries[(j - tile) * kEntries + index_at<kBits>(row, j)].lanes;
            sums[o - begin].lanes = even + odd;
        }
    }
    for (int r = 0; r < count; ++r)
        for (int64_t o = begin; o < end; ++o)
            p.outputs[(first + r) * p.num_rows + o] = sums[o - begin].lanes[r];
}

template <int kBits>
void lookup(const Product& p) {
    const int64_t share = (p.num_rows + p.num_threads - 1) / std::max(1, p.num_threads);
    const int64_t grain = std::clamp<int64_t>(share, kFewestRows, kMostRows);
    if (p.num_inputs == 1) {
        const auto motifs = by_position(p, 1 << kBits);
        return for_pieces(p.num_rows, grain, p.num_threads, [&](int64_t begin, int64_t end) {
            lookup_one<kBits>(p, motifs, begin, end);
        });
    }
    for_pieces(p.num_rows, grain, p.num_threads, [&](int64_t begin, int64_t end) {
        for (int64_t first = 0; first < p.num_inputs; first += kLanes)
            lookup_many<kBits>(p, first, begin, end);
    });
}

// The same product by decoding one row of the weight at a time: for blocks that do not end with the
// rows, and for motifs too many for a table. False if an index names no motif.
template <int kBits>
bool rowwise(const Product& p, int64_t width) {
    const int64_t size = p.block_size;
    std::atomic<bool> good{true};
    for_pieces(p.num_rows, 16, p.num_threads, [&](int64_t begin, int64_t end) {
        std::vector<float> row((width / size + 2) * size + kLanes);
        for (int64_t o = begin; o < end; ++o) {
            const int64_t start = o * width, block = start / size;
            const int64_t count = (start + width - 1) / size - block + 1;
            const auto* motifs = reinterpret_cast<const char*>(p.motifs);
            auto* out = reinterpret_cast<char*>(row.data());
            const bool own = size == 1
                ? decode_piece<kBits, 4>(motifs, p.num_motifs, 4, p.packed, block, count, out)
                : decode_piece<kBits, 0>(motifs, p.num_motifs, size * 4, p.packed, block, count, out);
            if (!own) good = false;
            const float* weights = row.data() + (start - block * size);
            for (int64_t r = 0; r < p.num_inputs; ++r) {
                const float* x = p.inputs + r * width;
                Lanes sums[4]{};
                int64_t i = 0;
                for (; i + 4 * kLanes <= width; i += 4 * kLanes)
                    for (int q = 0; q < 4; ++q) {
                        Lanes a, b;
                        std::memcpy(&a, weights + i + q * kLanes, sizeof a);
                        std::memcpy(&b, x + i + q * kLanes, sizeof b);
                        sums[q] = add_product(sums[q], a, b);
                    }
                const Lanes both = (sums[0] + sums[1]) + (sums[2] + sums[3]);
                float total = 0;
                for (int lane = 0; lane < kLanes; ++lane) total += both[lane];
                for (; i < width; ++i) total += weights[i] * x[i];
                p.outputs[r * p.num_rows + o] = total;
            }
        }
    });
    return good;
}

}  // namespace momos
