// Exact best motif for blocks of one or two values when motifs have one value more: the block's
// is 0, so its square only adds to a motif's distance (momos.vq.nearest.rated).
//
// The plane is cut into cells, and each keeps the motifs that can be best somewhere in it: most
// keep one, which is then the answer; else float64 decides among those kept. The difference of
// two motifs' distances is affine in the block, so its least value in a box is known: a motif is
// dropped where it is worse, by more than rounding can hide, than the best one at the box's
// centre. Boxes are split again and again, each with what its parent kept.
//
// Blocks beyond the motifs' surroundings are compared with all of them.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine.hpp"

namespace momos {

template <class T>
class Cells final : public Engine {
    static constexpr int kSplit = 4;         // parts of a box along an axis
    static constexpr int kLevels = 4;        // of boxes, at most
    static constexpr int kPerCell = 4;       // blocks that pay for a cell
    static constexpr int kPerMotif = 4;      // cells that a motif may have
    static constexpr size_t kMost = 32;      // motifs kept for a cell on average, to be of use
    static constexpr double kMargin = 0.25;  // of the extent of the motifs, on every side
    static constexpr double kSlack = 1e-12;  // of the largest distance: far above rounding
    static constexpr double kWider = 1e-9;   // boxes, for blocks rounded into the next cell

    struct Axis {
        double low = 0, extent = 0, cells_per_unit = 0;
        int cells = 1;
    };

    int size_;                           // values per block, 1 or 2
    std::vector<double> x_, y_, extra_;  // of each motif; the square of its last value
    Axis across_, down_;
    double slack_ = 0;
    std::vector<int32_t> cells_;  // the only motif, or ~ where in lists_ the motifs are
    std::vector<int32_t> lists_;  // each a count, then so many motifs in ascending order

   public:
    // As many cells along an axis as `num_blocks` pay for, a power of kSplit.
    Cells(const Motifs& motifs, int64_t num_blocks) : size_(motifs.block_size - 1) {
        double most = 0;
        for (int64_t j = 0; j < motifs.num_motifs; ++j) {
            const T* row = static_cast<const T*>(motifs.values) + j * motifs.block_size;
            x_.push_back(row[0]);
            y_.push_back(size_ == 2 ? row[1] : 0);
            extra_.push_back(double(row[size_]) * double(row[size_]));
            most = std::max(most, extra_.back());
        }
        const double paid =
            double(num_blocks) / kPerCell + double(motifs.num_motifs) * kPerMotif;
        int side = kSplit;
        for (int level = 1; level < kLevels; ++level)
            if (std::pow(double(side) * kSplit, size_) <= paid) side *= kSplit;
        across_ = axis(x_, side);
        if (size_ == 2) down_ = axis(y_, side);
        slack_ = kSlack * (across_.extent * across_.extent + down_.extent * down_.extent + most) +
                 std::numeric_limits<double>::min();
        cells_.resize(size_t(across_.cells) * down_.cells);
        Scratch scratch;
        for (int64_t j = 0; j < motifs.num_motifs; ++j) scratch.kept[0].push_back(int32_t(j));
        refine(0, 0, side, 0, scratch);
    }

    double candidates() const override {
        if (too_many()) return std::numeric_limits<double>::infinity();
        double seen = 0;
        for (size_t j = 0; j < x_.size(); ++j) {
            const int32_t cell = cell_of(x_[j], y_[j]);
            const int32_t entry = cell < 0 ? 0 : cells_[cell];
            seen += cell < 0 ? double(x_.size()) : entry < 0 ? lists_[~entry] : 1;
        }
        return seen / double(x_.size());
    }

    int64_t grain(int64_t, int) const override { return 8192; }

    int64_t query(const void* blocks, int64_t num_blocks, int32_t* indices) const override {
        return size_ == 1 ? query<1>(blocks, num_blocks, indices)
                          : query<2>(blocks, num_blocks, indices);
    }

   private:
    bool too_many() const { return lists_.size() > kMost * cells_.size(); }

    template <int S>
    int64_t query(const void* blocks, int64_t num_blocks, int32_t* indices) const {
        const T* block = static_cast<const T*>(blocks);
        int64_t bad = 0;
        for (int64_t b = 0; b < num_blocks; ++b, block += S) {
            const double x = block[0], y = S == 2 ? block[S - 1] : 0;
            const int32_t cell = cell_of(x, y);
            if (cell >= 0) {
                const int32_t entry = cells_[cell];
                indices[b] = entry >= 0 ? entry : best(&lists_[~entry], x, y);
            } else {
                bad += !(std::isfinite(x) && std::isfinite(y));
                indices[b] = best(x, y);
            }
        }
        return bad;
    }

    // Motifs with a margin around them, cut into cells.
    static Axis axis(const std::vector<double>& values, int cells) {
        double low = values[0], high = values[0];
        for (const double value : values) {
            low = std::min(low, value);
            high = std::max(high, value);
        }
        const double width = high > low ? high - low : 1;
        Axis made;
        made.low = low - kMargin * width;
        made.extent = (1 + 2 * kMargin) * width;
        made.cells_per_unit = cells / made.extent;
        made.cells = cells;
        return made;
    }

    // The number of a block's cell, or -1 outside them all.
    int32_t cell_of(double x, double y) const {
        const double column = (x - across_.low) * across_.cells_per_unit;
        const double row = (y - down_.low) * down_.cells_per_unit;
        if (!(column >= 0 && column < across_.cells && row >= 0 && row < down_.cells)) return -1;
        return int32_t(row) * across_.cells + int32_t(column);
    }

    // As the definition rounds it.
    double distance(int32_t j, double x, double y) const {
        const double dx = x - x_[j], dy = y - y_[j];
        return (dx * dx + dy * dy) + extra_[j];
    }

    int32_t best(const int32_t* list, double x, double y) const {
        int32_t found = list[1];
        double least = distance(found, x, y);
        for (int32_t i = 2; i <= list[0]; ++i) {
            const double other = distance(list[i], x, y);
            if (other < least) {
                least = other;
                found = list[i];
            }
        }
        return found;
    }

    int32_t best(double x, double y) const {
        int32_t found = 0;
        double least = distance(0, x, y);
        for (int32_t j = 1; j < int32_t(x_.size()); ++j) {
            const double other = distance(j, x, y);
            if (other < least) {
                least = other;
                found = j;
            }
        }
        return found;
    }

    struct Scratch {
        std::vector<int32_t> kept[kLevels + 2];  // by the box of each level
        std::vector<double> distances;
    };

    // Fills the cells of a box of `width` cells, whose best motifs are among kept[level].
    void refine(int column, int row, int width, int level, Scratch& scratch) {
        if (too_many()) return;  // and nobody may query this engine
        const int height = size_ == 2 ? width : 1;
        keep(column, row, width, height, level, scratch);
        const std::vector<int32_t>& kept = scratch.kept[level + 1];
        if (width > 1 && kept.size() > 1) {
            const int step = width / kSplit, rows = size_ == 2 ? kSplit : 1;
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < kSplit; ++c)
                    refine(column + c * step, row + r * step, step, level + 1, scratch);
            return;
        }
        int32_t entry = kept[0];
        if (kept.size() > 1) {
            entry = ~int32_t(lists_.size());
            lists_.push_back(int32_t(kept.size()));
            lists_.insert(lists_.end(), kept.begin(), kept.end());
        }
        for (int r = row; r < row + height; ++r)
            for (int c = column; c < column + width; ++c) cells_[r * across_.cells + c] = entry;
    }

    // Of kept[level], those that are best somewhere in a box, and perhaps a few more.
    void keep(int column, int row, int width, int height, int level, Scratch& scratch) const {
        const std::vector<int32_t>& among = scratch.kept[level];
        std::vector<int32_t>& kept = scratch.kept[level + 1];
        const double half_x = 0.5 * width / across_.cells * across_.extent;
        const double half_y = 0.5 * height / down_.cells * down_.extent;
        const double x = (column + 0.5 * width) / across_.cells * across_.extent;
        const double y = (row + 0.5 * height) / down_.cells * down_.extent;
        std::vector<double>& distances = scratch.distances;
        distances.resize(among.size());
        size_t centre = 0;
        for (size_t i = 0; i < among.size(); ++i) {
            const int32_t j = among[i];
            const double dx = x - (x_[j] - across_.low), dy = y - (y_[j] - down_.low);
            distances[i] = dx * dx + dy * dy + extra_[j];
            if (distances[i] < distances[centre]) centre = i;
        }
        const int32_t b = among[centre];
        kept.clear();
        for (size_t i = 0; i < among.size(); ++i) {
            const double turn = std::abs(x_[among[i]] - x_[b]) * half_x +
                                std::abs(y_[among[i]] - y_[b]) * half_y;
            const double least = distances[i] - distances[centre] - 2 * (1 + kWider) * turn;
            if (!(least > slack_)) kept.push_back(among[i]);
        }
    }
};

}  // namespace momos
