// Exact nearest motif for blocks of one or two values: a grid of cells, searched ring by ring.
//
// Cell edges are quantiles of the motifs, axis by axis, so cells are small where motifs are
// many. Motifs are stored cell by cell along a row of cells, so three neighbouring cells are one
// contiguous run. A block looks at the 3 x 3 cells around it; if the best distance is not below
// the distance to the border of what was seen, the square doubles.
//
// Exactness: rounding is monotone, so a motif beyond an edge has a rounded distance of at least
// the rounded squared gap to that edge. Runs are read in whole vectors; the motifs read beyond
// a run are real ones, so they need no mask. Equal motifs are stored once, under the lowest
// index; distances that tie otherwise are looked up again, one by one.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "engine.hpp"
#include "lanes.hpp"

namespace momos {

template <class T>
struct Vector2 {
    T x, y;
};

template <class T>
class Grid final : public Engine {
    static constexpr int kRead = 8;    // motifs read at once
    static constexpr int kBatch = 32;  // blocks whose cells are found together
    static constexpr double kPerCell = 1.5;
    static constexpr int kSamples = 16;  // motifs looked at per edge

    int size_;                         // values per block, 1 or 2
    int num_columns_, num_rows_;       // with an empty border on every side
    int steps_x_, steps_y_;            // halvings of the edge search
    std::vector<T> edges_x_, edges_y_; // inner edges, padded by infinity to 2^steps - 1
    std::vector<int32_t> start_;       // first motif of each cell, row-major
    std::vector<T> x_, y_;             // motifs by cell, padded by infinity
    std::vector<int32_t> index_;       // their original indices

   public:
    explicit Grid(const Motifs& motifs) : size_(motifs.block_size) {
        const int side =
            std::max<int>(1, std::lround(std::sqrt(motifs.num_motifs / kPerCell)));
        edges_x_ = edges(motifs, 0, side, steps_x_);
        edges_y_ = edges(motifs, 1, side, steps_y_);
        num_columns_ = inner(edges_x_) + 3;
        num_rows_ = inner(edges_y_) + 3;
        store(motifs);
    }

    double candidates() const override {
        double seen = 0;
        for (int row = 1; row + 1 < num_rows_; ++row)
            for (int column = 1; column + 1 < num_columns_; ++column) {
                const int64_t cell = int64_t(row) * num_columns_ + column;
                const double own = start_[cell + 1] - start_[cell];
                for (int r = -1; r <= 1; ++r) {
                    const int64_t middle = cell + int64_t(r) * num_columns_;
                    seen += own * (start_[middle + 2] - start_[middle - 1]);
                }
            }
        return seen / index_.size();
    }

    int64_t grain(int64_t, int) const override { return 4096; }

    int64_t query(const void* blocks, int64_t num_blocks, int32_t* indices) const override {
        const T* values = static_cast<const T*>(blocks);
        int64_t bad = 0;
        for (int64_t i = 0; i < num_blocks; i += kBatch)
            bad += batch(values + i * size_, std::min<int64_t>(kBatch, num_blocks - i), indices + i);
        return bad;
    }

   private:
    Vector2<T> motif(const Motifs& motifs, int64_t j) const {
        const T* row = static_cast<const T*>(motifs.values) + j * size_;
        return {row[0], size_ == 2 ? row[1] : T(0)};
    }

    // Up to side - 1 distinct quantiles of one coordinate, padded for the search.
    std::vector<T> edges(const Motifs& motifs, int axis, int side, int& steps) const {
        const int64_t stride = std::max<int64_t>(1, motifs.num_motifs / (int64_t(side) * kSamples));
        std::vector<T> values;
        for (int64_t j = 0; j < motifs.num_motifs; j += stride) {
            const auto z = motif(motifs, j);
            values.push_back(axis == 0 ? z.x : z.y);
        }
        std::sort(values.begin(), values.end());
        std::vector<T> result;
        for (int64_t e = 1; e < side; ++e) {
            const T edge = values[e * values.size() / side];
            if (edge > (result.empty() ? values[0] : result.back())) result.push_back(edge);
        }
        steps = 1;
        while ((size_t(1) << steps) - 1 < result.size()) ++steps;
        result.resize((size_t(1) << steps) - 1, std::numeric_limits<T>::infinity());
        return result;
    }

    static int inner(const std::vector<T>& edges) {
        return int(std::lower_bound(edges.begin(), edges.end(),
                                    std::numeric_limits<T>::infinity()) - edges.begin());
    }

    // How many edges are at most `value`, without a branch.
    static int32_t rank(const T* edges, int steps, T value) {
        int32_t position = 0;
        for (int32_t half = int32_t(1) << (steps - 1); half; half >>= 1)
            position += edges[position + half - 1] <= value ? half : 0;
        return position;
    }

    // Motifs by cell; of equal ones only the first, which is the one the definition names.
    void store(const Motifs& motifs) {
        const int64_t k = motifs.num_motifs, cells = int64_t(num_columns_) * num_rows_;
        std::vector<int64_t> cell(k);
        std::vector<int32_t> last(cells + 1, 0), order(k);
        for (int64_t j = 0; j < k; ++j) {
            const auto z = motif(motifs, j);
            cell[j] = int64_t(rank(edges_y_.data(), steps_y_, z.y) + 1) * num_columns_ +
                      rank(edges_x_.data(), steps_x_, z.x) + 1;
            ++last[cell[j] + 1];
        }
        std::partial_sum(last.begin(), last.end(), last.begin());
        for (int64_t j = 0; j < k; ++j) order[last[cell[j]]++] = j;
        start_.assign(1, 0);
        for (int64_t c = 0; c < cells; ++c) {
            keep_distinct(motifs, order.data() + (c ? last[c - 1] : 0), order.data() + last[c]);
            start_.push_back(index_.size());
        }
        x_.resize(index_.size() + kRead, std::numeric_limits<T>::infinity());
        y_.resize(index_.size() + kRead, std::numeric_limits<T>::infinity());
    }

    void keep_distinct(const Motifs& motifs, int32_t* begin, int32_t* end) {
        std::sort(begin, end, [&](int32_t a, int32_t b) {
            const auto p = motif(motifs, a), q = motif(motifs, b);
            if (p.x != q.x) return p.x < q.x;
            return p.y != q.y ? p.y < q.y : a < b;
        });
        for (const int32_t* j = begin; j != end; ++j) {
            const auto z = motif(motifs, *j);
            if (j != begin && z.x == x_.back() && z.y == y_.back()) continue;
            x_.push_back(z.x), y_.push_back(z.y), index_.push_back(*j);
        }
    }

    int64_t batch(const T* values, int count, int32_t* indices) const {
        T x[kBatch], y[kBatch];
        int32_t column[kBatch], row[kBatch];
        int64_t bad = 0;
        for (int i = 0; i < kBatch; ++i) {
            const T* block = values + std::min(i, count - 1) * size_;
            x[i] = block[0], y[i] = size_ == 2 ? block[1] : T(0);
        }
        for (int i = 0; i < kBatch; ++i) {
            if (std::isfinite(x[i]) && std::isfinite(y[i])) continue;
            x[i] = y[i] = 0;  // infinity lies beyond the last cell
            bad += i < count;
        }
        ranks(edges_x_.data(), steps_x_, x, column);
        ranks(edges_y_.data(), steps_y_, y, row);
        // The runs of the 3 x 3 cells around each block are fetched ahead of their use.
        int32_t begin[kBatch][3], end[kBatch][3];
        for (int i = 0; i < kBatch; ++i)
            for (int r = 0; r < 3; ++r) {
                const int32_t* cell = start_.data() + int64_t(row[i] + r) * num_columns_ + column[i];
                begin[i][r] = cell[0], end[i][r] = cell[3];
                __builtin_prefetch(x_.data() + begin[i][r]);
                __builtin_prefetch(y_.data() + begin[i][r]);
            }
        int32_t found[kBatch];  // a position, or -1: look further
        for (int i = 0; i < kBatch; ++i) {
            Best best;
            for (int r = 0; r < 3; ++r) look(best, x[i], y[i], begin[i][r], end[i][r]);
            const double distance = best.smallest();
            const int64_t position = best.only(distance);
            const int c = column[i] + 1, w = row[i] + 1;
            const bool settled = inside(x[i], y[i], distance, c - 1, c + 1, w - 1, w + 1);
            found[i] = settled ? int32_t(position) : -1;
        }
        for (int i = 0; i < count; ++i)
            indices[i] = found[i] >= 0 ? index_[found[i]]
                                       : search(x[i], y[i], column[i] + 1, row[i] + 1);
        return bad;
    }

    // `rank` for a whole batch; the halvings of all its blocks overlap.
    static void ranks(const T* edges, int steps, const T* values, int32_t* positions) {
        for (int i = 0; i < kBatch; ++i) positions[i] = 0;
        for (int32_t half = int32_t(1) << (steps - 1); half; half >>= 1)
            for (int i = 0; i < kBatch; ++i)
                positions[i] += edges[positions[i] + half - 1] <= values[i] ? half : 0;
    }

    void look(Best& best, double x, double y, int32_t begin, int32_t end) const {
        for (int32_t i = begin; i < end; i += kRead)
            best.see(squares(load(x_.data() + i), x, load(y_.data() + i), y), i);
    }

    int32_t search(T block_x, T block_y, int column, int row) const {
        const double x = block_x, y = block_y;
        for (int radius = 1;; radius *= 2) {
            const int left = std::max(column - radius, 0);
            const int right = std::min(column + radius, num_columns_ - 1);
            const int bottom = std::max(row - radius, 0);
            const int top = std::min(row + radius, num_rows_ - 1);
            double distance;
            const int32_t found = scan(x, y, left, right, bottom, top, distance);
            const bool whole = left == 0 && bottom == 0 && right == num_columns_ - 1 &&
                               top == num_rows_ - 1;
            if (whole || inside(x, y, distance, left, right, bottom, top)) return found;
        }
    }

    // Whether no motif outside these cells can be as near as `distance`.
    bool inside(double x, double y, double distance, int left, int right, int bottom,
                int top) const {
        const double gap_x = std::min(x - edge_below(edges_x_, left),
                                      edge_above(edges_x_, right) - x);
        const double gap_y = std::min(y - edge_below(edges_y_, bottom),
                                      edge_above(edges_y_, top) - y);
        const double gap = std::min(gap_x, gap_y);
        return distance < gap * gap;
    }

    static double edge_below(const std::vector<T>& edges, int cell) {
        return cell >= 2 ? double(edges[cell - 2]) : -std::numeric_limits<double>::infinity();
    }
    double edge_above(const std::vector<T>& edges, int cell) const {
        return cell >= 1 && size_t(cell - 1) < edges.size()
                   ? double(edges[cell - 1])
                   : std::numeric_limits<double>::infinity();
    }

    int32_t scan(double x, double y, int left, int right, int bottom, int top,
                 double& distance) const {
        Best best;
        for (int row = bottom; row <= top; ++row) {
            const int64_t cells = int64_t(row) * num_columns_;
            look(best, x, y, start_[cells + left], start_[cells + right + 1]);
        }
        distance = best.smallest();
        const int64_t position = best.only(distance);
        if (position >= 0) return index_[position];
        return lowest(x, y, left, right, bottom, top, distance);
    }

    // The lowest index at `distance`, for the rare blocks where it is not unique.
    int32_t lowest(double x, double y, int left, int right, int bottom, int top,
                   double& distance) const {
        int32_t found = std::numeric_limits<int32_t>::max();
        distance = std::numeric_limits<double>::infinity();
        for (int row = bottom; row <= top; ++row) {
            const int64_t cells = int64_t(row) * num_columns_;
            const int32_t end = std::min<int64_t>(start_[cells + right + 1] + kRead, index_.size());
            for (int32_t i = start_[cells + left]; i < end; ++i) {
                const double dx = double(x_[i]) - x, dy = double(y_[i]) - y;
                const double d = dx * dx + dy * dy;
                if (d < distance || (d == distance && index_[i] < found))
                    distance = d, found = index_[i];
            }
        }
        return found;
    }
};

}  // namespace momos
