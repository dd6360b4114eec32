// The blocks of many tensors, one tensor after another, as if they were one array.
//
// The last block of a tensor may be cut short; what it lacks is zero. One parallel region serves
// all tensors, and which piece is which does not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine.hpp"
#include "parallel.hpp"

namespace momos {

struct Part {
    char* values;
    int64_t bytes;  // of all its values
    int64_t first;  // its first block among those of all parts
};

struct Piece {
    int64_t part, begin, end;  // blocks of that part
};

class Parts {
   public:
    explicit Parts(int64_t width) : width_(width) {}  // bytes of a block

    void add(char* values, int64_t bytes) {
        parts_.push_back({values, bytes, num_blocks_});
        num_blocks_ += (bytes + width_ - 1) / width_;
    }

    int64_t num_blocks() const { return num_blocks_; }
    int64_t width() const { return width_; }
    const Part& operator[](int64_t part) const { return parts_[part]; }

    // Blocks [first, last) in pieces of at most `grain`, none of which crosses parts.
    std::vector<Piece> cut(int64_t first, int64_t last, int64_t grain) const {
        std::vector<Piece> pieces;
        for (size_t p = 0; p < parts_.size(); ++p) {
            const int64_t start = parts_[p].first;
            const int64_t stop = std::min(last, start + (parts_[p].bytes + width_ - 1) / width_);
            for (int64_t b = std::max(first, start); b < stop; b += grain)
                pieces.push_back({int64_t(p), b - start, std::min(stop, b + grain) - start});
        }
        return pieces;
    }

    // The part that has block `number`.
    const Part& holder(int64_t number) const {
        const auto after = std::upper_bound(
            parts_.begin(), parts_.end(), number,
            [](int64_t value, const Part& part) { return value < part.first; });
        return *(after - 1);  // those without blocks come before one with the same first
    }

    // Copies block `number` of a part, zeros included.
    void copy(const Part& part, int64_t number, char* block) const {
        const int64_t at = number * width_, there = std::min(width_, part.bytes - at);
        std::memcpy(block, part.values + at, there);
        std::memset(block + there, 0, width_ - there);
    }

   private:
    int64_t width_, num_blocks_ = 0;
    std::vector<Part> parts_;
};

// Nearest motifs of blocks [first, last); returns how many are not finite.
inline int64_t query(const Engine& engine, const Parts& parts, int64_t first, int64_t last,
                     int32_t* indices, int num_threads) {
    const auto pieces = parts.cut(first, last, engine.grain(last - first, num_threads));
    std::atomic<int64_t> not_finite{0};
    for_pieces(pieces.size(), 1, num_threads, [&](int64_t at, int64_t) {
        const Piece& piece = pieces[at];
        const Part& part = parts[piece.part];
        const int64_t width = parts.width();
        const int64_t whole = std::min(piece.end, part.bytes / width);
        int32_t* own = indices + part.first - first;
        int64_t bad = 0;
        if (whole > piece.begin)
            bad += engine.query(part.values + piece.begin * width, whole - piece.begin,
                                own + piece.begin);
        if (whole < piece.end) {  // one block, cut short
            std::vector<double> block((width + 7) / 8);
            parts.copy(part, whole, reinterpret_cast<char*>(block.data()));
            bad += engine.query(block.data(), 1, own + whole);
        }
        not_finite += bad;
    });
    return not_finite;
}

// The blocks of these numbers; false if one is out of range.
inline bool take(const Parts& parts, const int64_t* numbers, int64_t count, char* blocks) {
    for (int64_t i = 0; i < count; ++i) {
        if (numbers[i] < 0 || numbers[i] >= parts.num_blocks()) return false;
        const Part& part = parts.holder(numbers[i]);
        parts.copy(part, numbers[i] - part.first, blocks + i * parts.width());
    }
    return true;
}

struct Change {
    double distortion = 0;  // the sum of the squared differences
    int64_t moved = 0;      // values that are not what they were
    bool good = true;       // whether all indices name motifs; else nothing means anything
};

// Replaces every block by its motif. Sums are in an order that follows from the parts alone.
template <class T>
Change rewrite(const Parts& parts, const T* motifs, int64_t num_motifs, const int32_t* indices,
               int num_threads) {
    constexpr int64_t kPiece = 1 << 13;
    constexpr int kSums = 8;  // an addition would wait for the last one
    const int64_t size = parts.width() / sizeof(T);
    const auto pieces = parts.cut(0, parts.num_blocks(), kPiece);
    std::vector<Change> changes(pieces.size());
    for_pieces(pieces.size(), 1, num_threads, [&](int64_t at, int64_t) {
        const Piece& piece = pieces[at];
        const Part& part = parts[piece.part];
        T* values = reinterpret_cast<T*>(part.values);
        const int64_t count = part.bytes / int64_t(sizeof(T));
        double sums[kSums] = {};
        Change change;
        for (int64_t b = piece.begin; b < piece.end; ++b) {
            const int64_t motif = indices[part.first + b];
            if (motif < 0 || motif >= num_motifs) {
                changes[at].good = false;
                return;
            }
            const T* own = motifs + motif * size;
            T* block = values + b * size;
            const int64_t end = std::min(size, count - b * size);
            for (int64_t i = 0; i < end; ++i) {
                const double difference = double(block[i]) - double(own[i]);
                sums[(b * size + i) % kSums] += difference * difference;
                change.moved += block[i] != own[i];
                block[i] = own[i];
            }
        }
        for (int i = 0; i < kSums; ++i) change.distortion += sums[i];
        changes[at] = change;
    });
    Change total;
    for (const Change& change : changes) {
        total.distortion += change.distortion;
        total.moved += change.moved;
        total.good = total.good && change.good;
    }
    return total;
}

template <class T>
bool finite(const T* values, int64_t count, int num_threads) {
    std::atomic<bool> all{true};
    for_pieces(count, 1 << 15, num_threads, [&](int64_t begin, int64_t end) {
        T sums[8] = {};  // an addition would wait for the last one
        for (; begin + 8 <= end; begin += 8)
            for (int i = 0; i < 8; ++i) sums[i] += values[begin + i] * T(0);
        for (; begin < end; ++begin) sums[0] += values[begin] * T(0);
        for (int i = 1; i < 8; ++i) sums[0] += sums[i];
        if (sums[0] != 0) all = false;  // 0 x infinity and 0 x NaN are NaN, which differs from 0
    });
    return all;
}

template <class T>
bool narrow(const int32_t* indices, int64_t count, int64_t num_motifs, T* fewer, int num_threads) {
    std::atomic<bool> good{true};
    for_pieces(count, 1 << 15, num_threads, [&](int64_t begin, int64_t end) {
        bool own = true;
        for (int64_t i = begin; i < end; ++i) {
            own &= indices[i] >= 0 && indices[i] < num_motifs;
            fewer[i] = T(indices[i]);
        }
        if (!own) good = false;
    });
    return good;
}

}  // namespace momos
