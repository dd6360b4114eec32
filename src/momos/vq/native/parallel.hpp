// Cuts a range over threads.
//
// OpenMP where the compiler has it: on Linux the module then shares torch's own thread pool, whose
// idle threads would otherwise still spin on the cores that ours need.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace momos {

// Calls work(begin, end) on pieces of at most `grain` until [0, total) is done. Pieces are
// handed out as threads become free, so a slow core does not hold the others up.
template <class Work>
void for_pieces(int64_t total, int64_t grain, int num_threads, const Work& work) {
    const int64_t pieces = (total + grain - 1) / grain;
    const int team = int(std::min<int64_t>(std::max(1, num_threads), pieces));
    std::atomic<int64_t> next{0};
    std::exception_ptr failure;
    std::atomic<bool> failed{false};
    auto run = [&] {
        try {
            for (int64_t piece; !failed && (piece = next++) < pieces;)
                work(piece * grain, std::min(total, (piece + 1) * grain));
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    if (team <= 1) {
        run();
    } else {
#if defined(_OPENMP)
#pragma omp parallel num_threads(team)
        run();
#else
        std::vector<std::thread> threads;
        for (int t = 1; t < team; ++t) threads.emplace_back(run);
        run();
        for (auto& thread : threads) thread.join();
#endif
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace momos
