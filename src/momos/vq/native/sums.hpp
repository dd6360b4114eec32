// Blocks from motifs, and the sum of the blocks of each motif: two linear maps, each the other's
// transpose.
//
// Sums are in float64, and their order follows from the numbers of blocks, motifs and values
// alone: shares of fixed size, each summed into kWays tables in turn, the tables added in order,
// then the shares in order. Neither threads nor the instruction set change a result.
// Every index is compared with the number of motifs before it is used; both functions return
// false at a wrong one, and what they have written by then means nothing.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "parallel.hpp"

namespace momos {

constexpr int64_t kShare = 1 << 14;  // blocks in a share, at least
constexpr int64_t kShares = 256;     // shares, at most
constexpr int64_t kPerMotif = 8;     // blocks for each motif in a share, at least: bounds memory
constexpr int kWays = 4;             // an addition would wait for the last one to the same motif
constexpr int64_t kNarrow = 1 << 10;  // values of all motifs up to which that many tables pay

template <class T, int S>  // S: the block size where it is known at compile time, else 0
class Sums {
   public:
    Sums(const T* blocks, const int32_t* indices, int64_t num_motifs, int block_size)
        : blocks_(blocks), indices_(indices), num_motifs_(num_motifs), s_(block_size) {}

    bool write(int64_t num_blocks, T* sums, int num_threads) const {
        const int64_t share = std::max({kShare, kPerMotif * num_motifs_,
                                        (num_blocks + kShares - 1) / kShares});
        const int64_t shares = (num_blocks + share - 1) / share, width = num_motifs_ * size();
        std::vector<double> tables(std::max<int64_t>(1, shares) * width);
        std::atomic<bool> good{true};
        for_pieces(shares, 1, num_threads, [&](int64_t at, int64_t) {
            const int64_t end = std::min(num_blocks, (at + 1) * share);
            double* table = tables.data() + at * width;
            if (!(width > kNarrow ? add<1>(at * share, end, table)
                                  : add<kWays>(at * share, end, table)))
                good = false;
        });
        for (int64_t at = 1; at < shares; ++at)
            for (int64_t i = 0; i < width; ++i) tables[i] += tables[at * width + i];
        for (int64_t i = 0; i < width; ++i) sums[i] = T(tables[i]);
        return good;
    }

   private:
    const T* blocks_;
    const int32_t* indices_;
    int64_t num_motifs_;
    int s_;

    int size() const { return S ? S : s_; }

    template <int Ways>
    bool add(int64_t begin, int64_t end, double* table) const {
        const int64_t width = num_motifs_ * size();
        std::vector<double> more((Ways - 1) * width);
        double* tables[Ways] = {table};
        for (int way = 1; way < Ways; ++way) tables[way] = more.data() + (way - 1) * width;
        int64_t b = begin;
        for (; b + Ways <= end; b += Ways)
            for (int way = 0; way < Ways; ++way)
                if (!add_block(b + way, tables[way])) return false;
        for (; b < end; ++b)
            if (!add_block(b, table)) return false;
        for (int way = 1; way < Ways; ++way)
            for (int64_t i = 0; i < width; ++i) table[i] += tables[way][i];
        return true;
    }

    bool add_block(int64_t b, double* table) const {
        const int64_t motif = indices_[b];
        if (motif < 0 || motif >= num_motifs_) return false;
        const T* block = blocks_ + b * size();
        double* sum = table + motif * size();
        for (int i = 0; i < size(); ++i) sum[i] += double(block[i]);
        return true;
    }
};

template <class T>
bool sum_by_motif(const T* blocks, const int32_t* indices, int64_t num_blocks, int64_t num_motifs,
                  int block_size, T* sums, int num_threads) {
    const auto run = [&](auto fixed) {
        return Sums<T, decltype(fixed)::value>(blocks, indices, num_motifs, block_size)
            .write(num_blocks, sums, num_threads);
    };
    switch (block_size) {
        case 1: return run(std::integral_constant<int, 1>{});
        case 2: return run(std::integral_constant<int, 2>{});
        case 4: return run(std::integral_constant<int, 4>{});
        case 8: return run(std::integral_constant<int, 8>{});
        case 16: return run(std::integral_constant<int, 16>{});
        default: return run(std::integral_constant<int, 0>{});
    }
}

// Adds to counts[j] how many indices are j.
inline bool usage(const int32_t* indices, int64_t num_blocks, int64_t num_motifs,
                  int64_t* counts) {
    std::vector<int64_t> more((kWays - 1) * num_motifs);
    int64_t* tables[kWays] = {counts};
    for (int way = 1; way < kWays; ++way) tables[way] = more.data() + (way - 1) * num_motifs;
    for (int64_t b = 0; b < num_blocks; ++b) {
        const int64_t motif = indices[b];
        if (motif < 0 || motif >= num_motifs) return false;
        ++tables[b % kWays][motif];
    }
    for (int way = 1; way < kWays; ++way)
        for (int64_t j = 0; j < num_motifs; ++j) counts[j] += tables[way][j];
    return true;
}

// Copies `bytes` for each index; B is their number where it is known at compile time, else 0.
// The last copy is cut short where `total` bytes end.
template <int B>
bool gather(const char* motifs, const int32_t* indices, int64_t num_blocks, int64_t num_motifs,
            int64_t bytes, char* blocks, int64_t total, int num_threads) {
    std::atomic<bool> good{true};
    for_pieces(num_blocks, kShare, num_threads, [&](int64_t begin, int64_t end) {
        const int64_t width = B ? B : bytes;
        if (end * width > total) {  // one block in all
            const int64_t motif = indices[--end];
            if (motif < 0 || motif >= num_motifs)
                good = false;
            else
                std::memcpy(blocks + end * width, motifs + motif * width, total - end * width);
        }
        for (int64_t b = begin; b < end; ++b) {
            const int64_t motif = indices[b];
            if (motif < 0 || motif >= num_motifs) {
                good = false;
                return;
            }
            std::memcpy(blocks + b * width, motifs + motif * width, width);
        }
    });
    return good;
}

inline bool gather(const char* motifs, const int32_t* indices, int64_t num_blocks,
                   int64_t num_motifs, int64_t bytes, char* blocks, int64_t total,
                   int num_threads) {
    const auto run = [&](auto fixed) {
        return gather<decltype(fixed)::value>(motifs, indices, num_blocks, num_motifs, bytes,
                                              blocks, total, num_threads);
    };
    switch (bytes) {
        case 2: return run(std::integral_constant<int, 2>{});
        case 4: return run(std::integral_constant<int, 4>{});
        case 8: return run(std::integral_constant<int, 8>{});
        case 16: return run(std::integral_constant<int, 16>{});
        case 32: return run(std::integral_constant<int, 32>{});
        case 64: return run(std::integral_constant<int, 64>{});
        default: return run(std::integral_constant<int, 0>{});
    }
}

}  // namespace momos
