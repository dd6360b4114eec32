// What every CPU engine is: motifs prepared once, queried for any number of blocks.
//
// Engines return exactly the indices of the definition (nearest_reference in
// vq/nearest.py): differences, squares and sums rounded to float64 in order of
// position, smallest distance, ties to the lowest index. The build must therefore never
// contract a multiply and an add (-ffp-contract=off); filters that may be inexact ask for
// fused operations by name.
#pragma once
#include <cstdint>
#include <memory>

namespace momos {

struct Engine {
    virtual ~Engine() = default;
    // Writes the nearest motif of each of `num_blocks` blocks, in this thread; returns how many
    // blocks hold a value that is not finite (their indices are then meaningless).
    virtual int64_t query(const void* blocks, int64_t num_blocks, int32_t* indices) const = 0;
    // Of `num_blocks` blocks, how many to give to a thread at once.
    virtual int64_t grain(int64_t num_blocks, int num_threads) const = 0;
    // Motifs looked at for a block that lies on a motif, on average.
    virtual double candidates() const = 0;
};

struct Motifs {
    const void* values;  // (num_motifs, block_size) row-major, float or double
    int64_t num_motifs;
    int block_size;
    bool is_double;
};

}  // namespace momos
