#include "threads.h"

#include <sched.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace rm {
namespace {

constexpr int SPINS = 2000;  // some 20 to 60 microseconds

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class ThreadPool {
  public:
    explicit ThreadPool(int wanted) : wanted_(wanted), owner_(getpid()) {
        threads_.reserve(wanted - 1);
        try {
            for (; size_ < wanted; size_++) threads_.emplace_back([this, id = size_] { loop(id); });
        } catch (const std::exception&) {
            // The system lets us have no more of them, or of the memory for their stacks: those that are there do.
        }
    }

    ~ThreadPool() {
        stop_ = true;
        wake();
        for (auto& thread : threads_) thread.join();
    }

    int wanted() const { return wanted_; }
    // After a fork the child has this object but none of its threads.
    bool inherited() const { return owner_ != getpid(); }

    void run(Job job, void* context) {
        job_ = job;
        context_ = context;
        if (size_ > 1) wake();
        work(0);
    }

  private:
    void work(int id) {
        Team team{meeting_, id, size_};
        job_(context_, team);
        team.barrier();
    }

    void wake() {
        epoch_.fetch_add(1);
        if (sleeping_.load() > 0) {
            { std::lock_guard<std::mutex> hold(mutex_); }
            ready_.notify_all();
        }
    }

    void loop(int id) {
        for (uint32_t seen = 0;; seen++) {
            await(seen);
            if (stop_) return;
            work(id);
        }
    }

    void await(uint32_t seen) {
        for (int i = 0; i < SPINS; i++) {
            if (epoch_.load(std::memory_order_acquire) != seen) return;
            relax();
        }
        sleeping_.fetch_add(1);
        {
            std::unique_lock<std::mutex> hold(mutex_);
            ready_.wait(hold, [&] { return epoch_.load() != seen; });
        }
        sleeping_.fetch_sub(1);
    }

    const int wanted_;
    int size_ = 1;  // the caller's thread included
    const pid_t owner_;
    Meeting meeting_;
    alignas(64) std::atomic<uint32_t> epoch_{0};
    std::atomic<int> sleeping_{0};
    std::atomic<bool> stop_{false};
    Job job_ = nullptr;
    void* context_ = nullptr;
    std::mutex mutex_;
    std::condition_variable ready_;
    std::vector<std::thread> threads_;
};

std::mutex turn;       // one region at a time
ThreadPool* pool = nullptr;  // never destroyed: threads may outlive static objects
int wanted = 1;

ThreadPool& current() {
    if (pool && pool->inherited()) pool = nullptr;  // leaked on purpose, see `inherited`
    if (pool && pool->wanted() != wanted) {
        delete pool;
        pool = nullptr;
    }
    if (!pool) pool = new ThreadPool(wanted);
    return *pool;
}

}  // namespace

void wait_for_change(const std::atomic<uint32_t>& value, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (value.load(std::memory_order_acquire) != seen) return;
        relax();
    }
    // The thread we wait for may need our core.
    while (value.load(std::memory_order_acquire) == seen) sched_yield();
}

Turn::Turn() { turn.lock(); }
Turn::~Turn() { turn.unlock(); }

void run(Job job, void* context) { current().run(job, context); }

int num_threads() { return wanted; }

void set_num_threads(int count) {
    std::lock_guard<std::mutex> hold(turn);
    wanted = count < 1 ? 1 : count;
}

}  // namespace rm
