// Exact nearest motif for blocks of any size: float32 filter over tiles, float64 verdict.
//
// A k-d tree cuts the motifs into groups of kGroup, blocks are put in the order of the groups
// they fall into, and kLanes blocks travel together, from their own group to its siblings and so
// on outwards. For a group with centre c and radius R a block b needs u = b - c and, for each motif z with v = z - c, |u|^2 + 2 (|v|^2 / 2 - u.v): one
// fused operation per value. Being centred, the sum cancels little, and its float32 error is at
// most error_ (|u|^2 + R^2): u and v are each rounded once (2^-24 relative), the chain of s fused
// operations starting at |v|^2 / 2 adds (s + 1) 2^-24 (R^2 / 2 + |u| R), and |u|^2 adds
// (s + 2) 2^-24 |u|^2; together less than 2 (s + 4) 2^-24 (|u|^2 + R^2), and error_ is four times
// that. A group is skipped when its box is farther than the best upper bound, kBox of them at once
// when their common box is; where more than one motif remains possible within the bounds, float64
// decides, as the definition says.
// Blocks beyond float32 after scaling, and motifs whose squares may leave float64, take the plain
// loop.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace momos {

constexpr float kTiny = 0x1p-96f;    // above all that underflow can lose
constexpr float kMargin = 0x1p-20f;  // more than a few roundings lose
constexpr float kWild = 0x1p40f;     // blocks beyond this take the plain loop

template <class T, int S>
class Flat final : public Engine, Tiles<T, S> {
    using Base = Tiles<T, S>;
    using Base::size, Base::leaf, Base::distance, Base::kTiles;
    using Base::num_motifs_, Base::num_groups_, Base::num_boxes_, Base::boxes_above_;
    using Base::scale_, Base::extreme_, Base::error_, Base::center_, Base::radius_;
    using Base::offset_, Base::half_, Base::low_, Base::high_, Base::index_;

   public:
    explicit Flat(const Motifs& motifs) : Base(motifs) {}

    double candidates() const override { return double(num_motifs_); }

    int64_t grain(int64_t num_blocks, int num_threads) const override {
        // Among many motifs a block may take long, so few of them are worth a thread.
        const int64_t least = std::clamp<int64_t>((int64_t(1) << 22) / num_motifs_, kLanes, 256);
        return std::clamp<int64_t>(num_blocks / (4 * std::max(1, num_threads)), least, 65536);
    }

    // Blocks sorted by leaf and taken kLanes at a time.
    int64_t query(const void* values, int64_t count, int32_t* indices) const override {
        const T* blocks = static_cast<const T*>(values);
        std::vector<int32_t> leaves(count), order(count), next(num_groups_ + 1, 0);
        int64_t bad = 0;
        for (int64_t b = 0; b < count; ++b) {
            const T* block = blocks + b * size();
            T check = 0;
            for (int i = 0; i < size(); ++i) check += block[i] * T(0);
            bad += check != 0;  // 0 x infinity and 0 x NaN are NaN, and NaN differs from 0
            ++next[(leaves[b] = leaf(block)) + 1];
        }
        if (bad) return bad;
        std::partial_sum(next.begin(), next.end(), next.begin());
        for (int64_t b = 0; b < count; ++b) order[next[leaves[b]]++] = b;
        std::vector<Visit> visits(num_groups_);
        std::vector<Row> scaled(size()), shifted(size());
        for (int64_t b = 0; b < count; b += kLanes)
            travel(blocks, order.data() + b, std::min<int64_t>(kLanes, count - b), leaves, indices,
                   visits, scaled.data(), shifted.data());
        return 0;
    }

   private:
    // What was learnt of one group: for each tile, a lower bound on its smallest distance.
    struct Visit {
        int64_t group;
        Lanes rest;  // what the distances of its motifs add to twice their half, less the slack
        Lanes lower[kTiles];
    };

    void travel(const T* blocks, const int32_t* order, int64_t count,
                const std::vector<int32_t>& leaves, int32_t* indices,
                std::vector<Visit>& visits, Row* scaled, Row* shifted) const {
        float* values = reinterpret_cast<float*>(scaled);
        for (int l = 0; l < kLanes; ++l) {
            const T* block = blocks + int64_t(order[std::min<int64_t>(l, count - 1)]) * size();
            for (int i = 0; i < size(); ++i) values[i * kLanes + l] = float(T(scale_) * block[i]);
        }
        Lanes sum = Lanes{};
        for (int i = 0; i < size(); ++i) sum += larger(scaled[i].lanes, -scaled[i].lanes);
        if (extreme_ || at_most(broadcast(kWild), sum)) {
            for (int64_t l = 0; l < count; ++l) plain(blocks, order[l], indices);
            return;
        }
        // How far the float32 block may be from the scaled one.
        const Lanes residue = sizeof(T) == 8 ? sum * 0x1p-23f : Lanes{};
        int64_t num_visits = 0;
        Lanes bound = broadcast(kFar);  // on the squared distance
        const int64_t own = leaves[order[0]];
        visit(own, scaled, shifted, residue, bound, visits, num_visits);
        for (int64_t far = 0; far < boxes_above_; ++far) {
            const int64_t box = (own / kBox) ^ far;
            if (box >= num_boxes_ || !near(num_groups_ + box, scaled, residue, bound)) continue;
            // All tests first: a visit between two of them would have to be guessed.
            int64_t groups[kBox];
            int num_near = 0;
            for (int64_t step = 0; step < kBox; ++step) {
                const int64_t group = box * kBox + ((own % kBox) ^ step);
                groups[num_near] = group;
                num_near += (group != own) & (group < num_groups_) && near(group, scaled, residue, bound);
            }
            for (int i = 0; i < num_near; ++i)
                visit(groups[i], scaled, shifted, residue, bound, visits, num_visits);
        }
        settle(blocks, order, count, scaled, bound, visits.data(), num_visits, indices);
    }

    bool near(int64_t box, const Row* scaled, Lanes residue, Lanes bound) const {
        Lanes square = Lanes{};
        for (int i = 0; i < size(); ++i) {
            const Lanes below = broadcast(low_[box * size() + i]) - scaled[i].lanes;
            const Lanes above = scaled[i].lanes - broadcast(high_[box * size() + i]);
            const Lanes gap = larger(larger(below, above), Lanes{});
            square = add_product(square, gap, gap);
        }
        if constexpr (sizeof(T) == 8) {
            const Lanes limit = root(bound) + residue;
            bound = limit * limit;
        }
        return at_most(square * (1 - error_), bound * (1 + kMargin) + kTiny);
    }

    // Bounds the distances to one group; keeps the tiles where a lane may have its nearest motif.
    void visit(int64_t group, const Row* scaled, Row* shifted, Lanes residue, Lanes& bound,
               std::vector<Visit>& visits, int64_t& num_visits) const {
        const float radius = radius_[group];
        Lanes square = Lanes{};
        for (int i = 0; i < size(); ++i) {
            const Lanes u = scaled[i].lanes - broadcast(center_[group * size() + i]);
            square = add_product(square, u, u);
            shifted[i].lanes = u;
        }
        const Lanes sum = square + radius * radius;
        Lanes slack = error_ * sum + kTiny;
        if constexpr (sizeof(T) == 8) slack += 4 * residue * (residue + larger(sum, broadcast(1)));
        const Lanes rest = square - slack;
        Visit& visit = visits[num_visits++];
        visit.group = group, visit.rest = rest;
        Lanes lowest = broadcast(kFar);
        for (int t = 0; t < kTiles; ++t) {
            const Lanes half = lowest_half(group * kTiles + t, shifted);
            visit.lower[t] = rest + 2 * half;
            lowest = smaller(lowest, half);
        }
        bound = smaller(bound, square + 2 * lowest + slack);
    }

    // The least |v|^2 / 2 - u.v of one tile.
    Lanes lowest_half(int64_t tile, const Row* shifted) const {
        Lanes lowest = broadcast(kFar);
        for (int64_t row = tile * kTile / kLanes; row < (tile + 1) * kTile / kLanes; ++row) {
            const float* half = reinterpret_cast<const float*>(half_.data() + row);
            const float* offset = reinterpret_cast<const float*>(offset_.data() + row * size());
            Lanes sum[kLanes];
            for (int a = 0; a < kLanes; ++a) sum[a] = broadcast(half[a]);
            for (int i = 0; i < size(); ++i) {
                const Lanes u = shifted[i].lanes;
                for (int a = 0; a < kLanes; ++a)
                    sum[a] = subtract_product(sum[a], u, broadcast(offset[i * kLanes + a]));
            }
            for (int step = kLanes / 2; step; step /= 2)
                for (int a = 0; a < step; ++a) sum[a] = smaller(sum[a], sum[a + step]);
            lowest = smaller(lowest, sum[0]);
        }
        return lowest;
    }

    // The nearest of the motifs within a block's bound: mostly there is one.
    struct Nearest {
        int64_t motif = -1;
        double distance = -1;  // measured when a second motif comes up
    };

    void settle(const T* blocks, const int32_t* order, int64_t count, const Row* scaled,
                Lanes bound, const Visit* visits, int64_t num_visits, int32_t* indices) const {
        Nearest nearest[kLanes];
        for (const Visit* visit = visits; visit < visits + num_visits; ++visit)
            for (int t = 0; t < kTiles; ++t)
                for (unsigned lanes = at_most(visit->lower[t], bound); lanes; lanes &= lanes - 1) {
                    const int l = __builtin_ctz(lanes);
                    if (l >= count) break;
                    const T* block = blocks + int64_t(order[l]) * size();
                    const float rest = visit->rest[l], limit = (bound[l] - rest) * 0.5f;
                    within(visit->group * kTiles + t, reinterpret_cast<const float*>(scaled) + l,
                           limit + kMargin * (std::fabs(limit) + std::fabs(rest)),
                           [&](int64_t j) { compare(block, j, nearest[l]); });
                }
        for (int64_t l = 0; l < count; ++l) indices[order[l]] = index_[nearest[l].motif];
    }

    // Calls seen(j) for each motif of a tile with |v|^2 / 2 - u.v <= limit; block has stride kLanes.
    template <class Seen>
    void within(int64_t tile, const float* block, float limit, const Seen& seen) const {
        const float* center = center_.data() + tile / kTiles * size();
        for (int64_t row = tile * kTile / kLanes; row < (tile + 1) * kTile / kLanes; ++row) {
            Lanes half = half_[row].lanes;
            for (int i = 0; i < size(); ++i)
                half = subtract_product(half, broadcast(block[i * kLanes] - center[i]),
                                        offset_[row * size() + i].lanes);
            for (unsigned lanes = at_most(half, broadcast(limit)); lanes; lanes &= lanes - 1)
                seen(row * kLanes + __builtin_ctz(lanes));
        }
    }

    void compare(const T* block, int64_t j, Nearest& nearest) const {
        if (nearest.motif < 0) {
            nearest.motif = j;
            return;
        }
        if (nearest.distance < 0) nearest.distance = distance(block, nearest.motif);
        const double other = distance(block, j);
        if (other < nearest.distance ||
            (other == nearest.distance && index_[j] < index_[nearest.motif]))
            nearest = {j, other};
    }

    void plain(const T* blocks, int64_t b, int32_t* indices) const {
        Nearest nearest;
        for (int64_t j = 0; j < num_motifs_; ++j) compare(blocks + b * size(), j, nearest);
        indices[b] = index_[nearest.motif];
    }
};

template <class T>
std::unique_ptr<Engine> make_flat(const Motifs& motifs) {
    switch (motifs.block_size) {
        case 3: return std::make_unique<Flat<T, 3>>(motifs);
        case 4: return std::make_unique<Flat<T, 4>>(motifs);
        case 5: return std::make_unique<Flat<T, 5>>(motifs);  // four values and a code length
        case 8: return std::make_unique<Flat<T, 8>>(motifs);
        case 16: return std::make_unique<Flat<T, 16>>(motifs);
        default: return std::make_unique<Flat<T, 0>>(motifs);
    }
}

}  // namespace momos
