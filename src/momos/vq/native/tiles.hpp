// Motifs prepared for the flat engine: in tiles, around centres, within boxes, under a k-d tree.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "engine.hpp"
#include "lanes.hpp"

namespace momos {

constexpr int kTile = 16;               // motifs whose smallest distance is kept
constexpr int kBox = 8;                 // groups in a box of boxes
constexpr float kFar = std::numeric_limits<float>::infinity();

template <class T>
struct Node {
    int32_t axis;   // -1: a leaf
    int32_t right;  // left is the next node; a leaf keeps its group here
    T split;
};

// Values are scaled by a power of two so that motifs lie within [-1, 1]: tiny weights would
// otherwise underflow in float32. `motif` and `distance` give them as they came.
template <class T, int S>  // S: the block size where it is known at compile time, else 0
struct Tiles {
    // More motifs share one centre where pruning gains less.
    static constexpr int kTiles = S == 0 || S > 8 ? 8 : 4;  // tiles in a group
    static constexpr int kGroup = kTile * kTiles;           // motifs around one centre
    static constexpr int kScale = sizeof(T) == 4 ? 126 : 1000;  // its power is a normal T
    int s_;
    int64_t num_motifs_, num_groups_, num_boxes_;
    int64_t boxes_above_;  // the power of two not below num_boxes_
    double scale_;
    bool extreme_ = false;  // squares may leave the range of float64
    float error_;
    std::vector<Node<T>> nodes_;
    std::vector<float> center_, radius_;  // (group, s), (group)
    std::vector<Row> offset_, half_;      // (tile, kTile / kLanes, s), (tile, kTile / kLanes)
    std::vector<float> low_, high_;       // (group, s), then (box, s)
    std::vector<T> values_;               // (tile, kTile, s), as given
    std::vector<int32_t> index_;          // (tile, kTile), original indices

    int size() const { return S ? S : s_; }

    explicit Tiles(const Motifs& motifs)
        : s_(motifs.block_size), num_motifs_(motifs.num_motifs),
          num_groups_((motifs.num_motifs + kGroup - 1) / kGroup),
          error_(8.0f * (motifs.block_size + 4) * 0x1p-24f) {
        const T* values = static_cast<const T*>(motifs.values);
        double largest = 0;
        for (int64_t i = 0; i < num_motifs_ * s_; ++i)
            largest = std::max(largest, std::fabs(double(values[i])));
        int exponent = 0;
        std::frexp(largest, &exponent);
        scale_ = largest > 0 ? std::ldexp(1.0, std::clamp(-exponent, -kScale, kScale)) : 1.0;
        extreme_ = largest > 0x1p500 || (largest > 0 && largest < 0x1p-400);
        std::vector<int32_t> order(num_motifs_);
        std::iota(order.begin(), order.end(), 0);
        split(values, order, 0, num_groups_);
        store(values, order);
        enclose();
    }

    double motif(int64_t j, int i) const { return values_[j * size() + i]; }

    // The definition, in its order of operations.
    double distance(const T* block, int64_t j) const {
        double sum = 0;
        for (int i = 0; i < size(); ++i) {
            const double difference = double(block[i]) - motif(j, i);
            sum += difference * difference;
        }
        return sum;
    }

    // The group whose region of the k-d tree holds a block.
    int32_t leaf(const T* block) const {
        int32_t at = 0;
        while (nodes_[at].axis >= 0) {
            const Node<T>& node = nodes_[at];
            const int32_t below = block[node.axis] < node.split;
            at = node.right + below * (at + 1 - node.right);  // a branch would be guessed wrong
        }
        return nodes_[at].right;
    }

   private:
    // Orders the motifs of groups [first, first + groups) so that each group is compact.
    void split(const T* values, std::vector<int32_t>& order, int64_t first, int64_t groups) {
        const int64_t at = nodes_.size();
        nodes_.push_back({-1, int32_t(first), 0});
        if (groups == 1) return;
        int64_t left = 1;  // a power of two: siblings differ in one bit of their number
        while (2 * left < groups) left *= 2;
        const auto begin = order.begin() + first * kGroup;
        const auto end = order.begin() + std::min(num_motifs_, (first + groups) * kGroup);
        const auto middle = begin + left * kGroup;
        const int axis = widest(values, begin, end);
        std::nth_element(begin, middle, end, [&](int32_t a, int32_t b) {
            return values[int64_t(a) * s_ + axis] < values[int64_t(b) * s_ + axis];
        });
        nodes_[at].axis = axis;
        nodes_[at].split = values[int64_t(*middle) * s_ + axis];
        split(values, order, first, left);
        nodes_[at].right = nodes_.size();
        split(values, order, first + left, groups - left);
    }

    int widest(const T* values, std::vector<int32_t>::iterator begin,
               std::vector<int32_t>::iterator end) const {
        int axis = 0;
        double largest = -1;
        for (int i = 0; i < s_; ++i) {
            double sum = 0, squares = 0;
            for (auto j = begin; j != end; ++j) {
                const double value = scale_ * values[int64_t(*j) * s_ + i];
                sum += value, squares += value * value;
            }
            const double spread = squares - sum * sum / double(end - begin);
            if (spread > largest) largest = spread, axis = i;
        }
        return axis;
    }

    void store(const T* values, const std::vector<int32_t>& order) {
        const int64_t padded = num_groups_ * kGroup;
        center_.assign(num_groups_ * s_, 0);
        radius_.assign(num_groups_, 0);
        offset_.assign(padded / kLanes * s_, Row{});
        half_.assign(padded / kLanes, Row{broadcast(kFar)});
        values_.resize(num_motifs_ * s_);
        index_ = order;
        for (int64_t j = 0; j < num_motifs_; ++j)
            std::copy_n(values + int64_t(order[j]) * s_, s_, values_.data() + j * s_);
        for (int64_t g = 0; g < num_groups_; ++g)
            centre(g, std::min<int64_t>(kGroup, num_motifs_ - g * kGroup));
    }

    void centre(int64_t group, int64_t count) {
        const int64_t first = group * kGroup;
        float* center = center_.data() + group * s_;
        for (int i = 0; i < s_; ++i) {
            double sum = 0;
            for (int64_t j = 0; j < count; ++j) sum += scale_ * motif(first + j, i);
            center[i] = float(sum / count);
        }
        double farthest = 0;
        for (int64_t j = first; j < first + count; ++j) {
            double square = 0;
            for (int i = 0; i < s_; ++i) {
                const double v = scale_ * motif(j, i) - center[i];
                offset_[j / kLanes * s_ + i].lanes[j % kLanes] = float(v);
                square += v * v;
            }
            half_[j / kLanes].lanes[j % kLanes] = float(square / 2);
            farthest = std::max(farthest, square);
        }
        radius_[group] = float(std::sqrt(farthest) * (1 + 0x1p-20)) + 0x1p-100f;
    }

    // Boxes around each group, then around each kBox groups, in scaled values rounded outwards.
    void enclose() {
        num_boxes_ = (num_groups_ + kBox - 1) / kBox;
        for (boxes_above_ = 1; boxes_above_ < num_boxes_;) boxes_above_ *= 2;
        low_.assign((num_groups_ + num_boxes_) * s_, kFar);
        high_.assign((num_groups_ + num_boxes_) * s_, -kFar);
        for (int64_t j = 0; j < num_motifs_; ++j)
            for (const int64_t box : {j / kGroup, num_groups_ + j / (kGroup * kBox)})
                for (int i = 0; i < s_; ++i) {
                    const float value = float(scale_ * motif(j, i));
                    float &low = low_[box * s_ + i], &high = high_[box * s_ + i];
                    low = std::min(low, std::nextafterf(value, -kFar));
                    high = std::max(high, std::nextafterf(value, kFar));
                }
    }
};

}  // namespace momos
