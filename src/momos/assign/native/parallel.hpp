// Cuts a range over threads; short ranges stay on the calling thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace momos {

// Calls work(begin, end) on pieces of at most `grain` until [0, total) is done. Pieces are
// handed out as threads become free, so a slow core does not hold the others up.
template <class Work>
void for_pieces(int64_t total, int64_t grain, int num_threads, const Work& work) {
    const int64_t pieces = (total + grain - 1) / grain;
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
    std::vector<std::thread> threads;
    try {
        for (int64_t t = 1; t < std::min<int64_t>(num_threads, pieces); ++t)
            threads.emplace_back(run);
    } catch (const std::system_error&) {
        // No more threads to be had: those that run, and this one, do the work.
    }
    run();
    for (auto& thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace momos
