// A small pool of threads that stay awake between the phases of a step.
//
// Work inside a region is a row of phases with a barrier between them. In each phase the threads take chunks of
// `total` units from one counter, large ones first: a thread that is held up (the machine has other work too) takes
// less. Waiting spins for some microseconds, then yields the core; between regions it sleeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace rm {

struct Team;
using Job = void (*)(void* context, Team& team);

struct alignas(64) Meeting {
    std::atomic<uint32_t> arrived{0};
    alignas(64) std::atomic<uint32_t> generation{0};
    alignas(64) std::atomic<int64_t> taken{0};
};

void wait_for_change(const std::atomic<uint32_t>& value, uint32_t seen);

// What one thread of a region sees.
struct Team {
    Meeting& meeting;
    int id;
    int size;

    // All threads are done with the phase; the next one starts with all its units untaken.
    void barrier() {
        if (size == 1) {
            meeting.taken.store(0, std::memory_order_relaxed);
            return;
        }
        uint32_t seen = meeting.generation.load(std::memory_order_acquire);
        if (meeting.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(size)) {
            meeting.arrived.store(0, std::memory_order_relaxed);
            meeting.taken.store(0, std::memory_order_relaxed);
            meeting.generation.store(seen + 1, std::memory_order_release);
        } else {
            wait_for_change(meeting.generation, seen);
        }
    }

    // Takes [begin, end) of this phase's `total` units, about `grain` at least; false when none are left.
    bool take(int64_t total, int64_t grain, int64_t& begin, int64_t& end) {
        int64_t at = meeting.taken.load(std::memory_order_relaxed);
        while (at < total) {
            int64_t share = size == 1 ? total : std::max(grain, (total - at) / (2 * size));
            int64_t next = std::min(total, at + share);
            if (meeting.taken.compare_exchange_weak(at, next, std::memory_order_relaxed)) {
                begin = at;
                end = next;
                return true;
            }
        }
        return false;
    }

    // The same in chunks of `count`: for units of very different cost.
    bool take_some(int64_t total, int64_t count, int64_t& begin, int64_t& end) {
        begin = meeting.taken.fetch_add(count, std::memory_order_relaxed);
        end = std::min(total, begin + count);
        return begin < total;
    }
};

// Callers take turns; the library's shared memory belongs to the one whose turn it is.
struct Turn {
    Turn();
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
};

// Runs `job` on all threads, the caller's included; ends with a barrier. The caller holds a `Turn`. A job must not throw:
// what memory it needs, it has beforehand.
void run(Job job, void* context);

template <class F>
void parallel(const Turn&, F&& work) {
    run([](void* context, Team& team) { (*static_cast<std::remove_reference_t<F>*>(context))(team); }, &work);
}

int num_threads();  // at most; a system that is short of them gives fewer
void set_num_threads(int count);

}  // namespace rm
