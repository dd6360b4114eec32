// The trellis of 2^v states that says which whole numbers may come next.
//
// A state allows the even numbers, or the odd ones and 0; the parity of the number's index among
// the allowed ones leads to the next state (rate-1/2 codes of Ungerboeck 1982).
#pragma once
#include <cstdint>
#include <stdexcept>

namespace momos::lattice {

constexpr int kMostTrellis = 8;
constexpr int64_t kMostValue = (int64_t(1) << 31) - 1;

struct Trellis {
    static constexpr int kBySubset[] = {0, 0, 0, 013, 023, 045, 0103, 0, 0515};
    static constexpr int kByParity[] = {0, 0, 0, 04, 04, 010, 024, 0, 0362};
    int bits, by_subset = 0, by_parity = 0;

    explicit Trellis(int v) : bits(v) {
        if (v != 0 && (v < 0 || v > kMostTrellis || !kBySubset[v]))
            throw std::invalid_argument("memory must be 0, 3, 4, 5, 6 or 8");
        by_subset = kBySubset[v] >> 1;
        by_parity = kByParity[v] >> 1;
    }

    int subset(int state) const { return state & 1; }
    int next(int state, int64_t index) const {
        return (state >> 1) ^ (-(state & 1) & by_subset) ^ (-int(index & 1) & by_parity);
    }
    // The index of a size |v| among those that the subset allows; -1 if it does not.
    int64_t index(int64_t size, int subset) const {
        if (bits == 0) return size;
        if (((size ^ subset) & 1) && size) return -1;
        return (size + subset) >> 1;
    }
    int64_t size(int64_t index, int subset) const {
        return bits == 0 ? index : 2 * index - (subset & int(index != 0));
    }
};

}  // namespace momos::lattice
