// Cuts a range over threads that nobody has to wait for.
//
// The caller works through the pieces as its helpers do, and waits only for pieces that a helper
// has begun. So on busy cores, where a helper may not run for milliseconds, the caller finishes
// alone. A region of OpenMP would wait for every thread to arrive.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace momos {

// Work that several threads may do at once, each until nothing is left.
struct Job {
    void (*run)(void*);
    void* work;
    int places;  // for helpers that have not come yet
    int active = 0;
};

// Threads that sleep until there is a job. They are never joined: the pool lives as long as the
// process, and a forked child makes its own, since threads are not forked.
class Pool {
   public:
    static Pool& one() {
#if !defined(_WIN32)
        static const int forked = pthread_atfork(nullptr, nullptr, [] { present() = nullptr; });
        (void)forked;
#endif
        Pool* pool = present();
        if (!pool) {
            Pool* made = new Pool;
            if (present().compare_exchange_strong(pool, made)) return *made;
            delete made;
        }
        return *pool;
    }

    // Runs the job here, and in as many helpers as it has places and as come in time.
    void run(Job& job) {
        const int wanted = job.places;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            grow(wanted);
            jobs_.push_back(&job);
        }
        for (int i = 0; i < wanted; ++i) called_.notify_one();
        job.run(job.work);
        std::unique_lock<std::mutex> lock(mutex_);
        drop(job);
        left_.wait(lock, [&] { return job.active == 0; });
    }

   private:
    std::mutex mutex_;
    std::condition_variable called_, left_;
    std::vector<Job*> jobs_;  // with places
    int helpers_ = 0;

    static std::atomic<Pool*>& present() {
        static std::atomic<Pool*> pool{nullptr};
        return pool;
    }

    void drop(const Job& job) {
        jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
    }

    void grow(int wanted) {
        for (; helpers_ < wanted; ++helpers_) {
#if !defined(_WIN32)
            sigset_t all, before;  // signals are for the threads of the program
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
            bool made = true;
            try {
                std::thread([this] { help(); }).detach();
            } catch (const std::system_error&) {
                made = false;  // the caller can do it alone
            }
#if !defined(_WIN32)
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
            if (!made) return;
        }
    }

    void help() {
        wake_early();
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            called_.wait(lock, [&] { return !jobs_.empty(); });
            Job& job = *jobs_.front();
            ++job.active;
            if (--job.places == 0) drop(job);
            lock.unlock();
            job.run(job.work);
            lock.lock();
            drop(job);  // nothing is left of it
            if (--job.active == 0) left_.notify_all();
        }
    }

    // Asks Linux for short slices of time, which it grants sooner: else a helper that wakes up
    // waits for the slice of a thread of torch to end that only spins for its next work.
    static void wake_early() {
#if defined(__linux__) && defined(SYS_sched_setattr)
        struct {
            uint32_t size, policy;
            uint64_t flags;
            int32_t nice;
            uint32_t priority;
            uint64_t slice, deadline, period;
        } attributes{};
        if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0)) return;
        attributes.slice = 100000;  // nanoseconds
        syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
    }
};

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
        Job job{[](void* own) { (*static_cast<decltype(run)*>(own))(); }, &run, team - 1};
        Pool::one().run(job);
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace momos
