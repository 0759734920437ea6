// Threads that take the pieces of one piece of work after another: of a product, of attention, of a search.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

inline void rest() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Pieces are claimed one by one, so the caller never waits for a thread that has not begun: a worker that sleeps, is busy
// elsewhere or did not survive a fork only leaves more to the others.
class Pool {
public:
    // f(piece, thread) for every piece; thread < the number of threads begun with. The caller works as thread 0.
    template <class F>
    void each(int64_t pieces, int threads, F&& f) {
        if (threads <= 1 || pieces <= 1 || pieces >= LIMIT) {
            for (int64_t i = 0; i < pieces; i++) f(i, 0);
            return;
        }
        context_ = &f;
        call_ = [](void* context, int64_t piece, int thread) {
            (*static_cast<std::remove_reference_t<F>*>(context))(piece, thread);
        };
        threads_.store(threads, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        const uint64_t count = (ticket_.load() >> 2 * BITS) + 1;
        ticket_.store(count << 2 * BITS | static_cast<uint64_t>(pieces) << BITS);
        if (asleep_.load() > 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            awake_.notify_all();
        }
        while (take(0)) {
        }
        for (int spins = 0; done_.load(std::memory_order_acquire) < pieces; spins++)
            if (spins < SPINS) rest();
            else std::this_thread::yield();
    }

    // The pool with at least this many threads, the caller's included; nullptr while another caller has it.
    static Pool* begin(int threads) {
        static std::atomic<Pool*> pool{nullptr};
        static std::mutex making;
        std::unique_lock<std::mutex> lock(making, std::try_to_lock);
        if (!lock.owns_lock()) return nullptr;
        if (pool == nullptr || !pool.load()->ours()) pool = new Pool();  // never freed: its threads end with the process
        if (!pool.load()->busy_.try_lock()) return nullptr;
        pool.load()->grow(threads);
        return pool;
    }

    void end() { busy_.unlock(); }

private:
    static constexpr int BITS = 20, SPINS = 2000;
    static constexpr int64_t LIMIT = int64_t{1} << BITS;

    // Claim and do a piece of the present work; false when none is left.
    bool take(int thread) {
        uint64_t now = ticket_.load(std::memory_order_acquire);
        while (open(now)) {
            if (thread >= threads_.load(std::memory_order_relaxed)) return false;
            if (!ticket_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
            call_(context_, static_cast<int64_t>(now & (LIMIT - 1)), thread);  // the work stands until this piece is done
            done_.fetch_add(1, std::memory_order_release);
            return true;
        }
        return false;
    }

    static bool open(uint64_t ticket) { return (ticket & (LIMIT - 1)) < (ticket >> BITS & (LIMIT - 1)); }

    void grow(int threads) {
        for (; size_ < threads; size_++) std::thread([this, thread = size_] { live(thread); }).detach();
    }

    void live(int thread) {
        for (int idle = 0;;) {
            if (take(thread)) {
                idle = 0;
            } else if (idle++ < SPINS) {
                rest();
            } else {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_++;  // from here on whoever publishes work will wake us
                const uint64_t seen = ticket_.load();
                if (open(seen) && thread < threads_.load()) {
                    asleep_--;
                    continue;
                }
                awake_.wait(lock, [&] { return ticket_.load() != seen; });
                asleep_--;
                idle = 0;
            }
        }
    }

#if defined(__unix__) || defined(__APPLE__)
    bool ours() const { return process_ == getpid(); }
    const pid_t process_ = getpid();
#else
    bool ours() const { return true; }
#endif

    std::mutex busy_, mutex_;
    std::condition_variable awake_;
    std::atomic<int> asleep_{0}, threads_{0};
    std::atomic<int64_t> done_{0};
    std::atomic<uint64_t> ticket_{0};  // count of works, pieces, next piece: 24, 20 and 20 bits
    void (*call_)(void*, int64_t, int) = nullptr;
    void* context_ = nullptr;
    int size_ = 1;
};
