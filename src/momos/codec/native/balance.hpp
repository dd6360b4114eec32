// Sums of rounding errors: of the weights of one kernel, and of one row.
//
// The quantizer may add to its cost the squares of such sums, each times a weight. A sum that is
// not yet complete counts less, for the weights that follow can still correct it.
#pragma once
#include <algorithm>
#include <cstdint>

#include "contexts.hpp"

namespace momos::lattice {

constexpr double kMostBalance = 1e6;

// The sum over consecutive groups of weights: how much its square counts after each weight.
//
// If each of the n weights that follow can be moved by d at a cost of d^2, a sum s that counts w
// times its square when complete costs at least s^2 w / (1 + w n), the moves included.
class Tally {
  public:
    static constexpr int64_t kAhead = 64;  // weights after which n grows no more

    Tally() = default;
    // `left`: how many weights the first group still has.
    Tally(double weight, int64_t size, int64_t left, int64_t count)
        : size_(size), left_(left), count_(count) {
        for (int64_t n = 0; n < kAhead; ++n) weights_[n] = weight / (1 + weight * double(n));
    }

    // Advances to the next weight. Returns how much the square of the sum counts after it.
    double next() {
        if (left_ == 0) left_ = size_;
        const double before = weight_;
        weight_ = weights_[std::min(std::min(--left_, --count_), kAhead - 1)];
        rise_ = float(weight_ - before);
        slope_ = float(2 * weight_);
        return weight_;
    }
    float rise() const { return rise_; }    // how much more the square counts than before
    float slope() const { return slope_; }  // what an error of 1 costs for a sum of 1
    bool ends() const { return left_ == 0; }

  private:
    int64_t size_ = 1, left_ = 1, count_ = 1;
    double weight_ = 0, weights_[kAhead] = {};
    float rise_ = 0, slope_ = 0;
};

// How much the squares of the sums of kernels and rows count. Sums of one weight do not.
struct Balance {
    Geometry geometry;
    double kernel_weight, row_weight;

    bool valid() const {  // false for a nan
        return kernel_weight >= 0 && kernel_weight <= kMostBalance && row_weight >= 0 &&
               row_weight <= kMostBalance;
    }
    Balance from(int64_t begin) const {
        Balance moved = *this;
        moved.geometry.position += begin;
        return moved;
    }
    bool kernels() const { return kernel_weight > 0 && geometry.kernel > 1; }
    bool rows() const { return row_weight > 0 && geometry.row > 1; }
    int sums() const { return int(kernels()) + int(rows()); }
    // Fills the tallies of the `count` weights of one stream; how many there are.
    int start(Tally* tallies, int64_t count) const {
        int n = 0;
        const auto add = [&](double weight, int64_t size) {
            tallies[n++] = Tally(weight, size, size - geometry.position % size, count);
        };
        if (kernels()) add(kernel_weight, geometry.kernel);
        if (rows()) add(row_weight, geometry.row);
        return n;
    }
};

}  // namespace momos::lattice
