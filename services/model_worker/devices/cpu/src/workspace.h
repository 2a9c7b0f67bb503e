// Memory that a call needs and the next one uses again. Grows only; guarded by the threads' turn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "weight.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rm {

// A block of floats or such, aligned for vectors.
template <class T>
class Block {
  public:
    Block() = default;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block() { free(data_); }

    // At least `count` elements; what was in it is lost when it grows.
    T* grow(int64_t count) {
        if (count > size_) {
            free(data_);
            data_ = nullptr;
            size_ = 0;
            const size_t align = 1 << 21, bytes = (size_t(count) * sizeof(T) + 255) / 64 * 64;
            void* data = nullptr;
            if (posix_memalign(&data, bytes >= align ? align : 64, bytes)) throw std::bad_alloc();
#if defined(__linux__)
            if (bytes >= align) madvise(data, bytes, MADV_HUGEPAGE);
#endif
            data_ = static_cast<T*>(data);
            size_ = count;
        }
        return data_;
    }
    T* data() const { return data_; }
    operator T*() const { return data_; }

  private:
    T* data_ = nullptr;
    int64_t size_ = 0;
};

constexpr int64_t PANELS_IN_L2 = 192 << 10;  // bytes of weights kept while all rows pass by
constexpr int64_t SMALL = 16384;  // inputs [floats] that every thread rather prepares for itself than waits for

// Prepared activations, and one thread's room for attention.
struct Scratch {
    Block<float> normed, line, scales, attention;
    Block<int16_t> q;
    Block<int32_t> sums;
    Block<uint8_t> panels;  // of 12 bits, unpacked

    // Room for `rows` rows of inputs of `w`.
    void reserve(int64_t rows, const Weight& w) {
        line.grow(w.k);
        if (!quantized(w)) {
            normed.grow(rows * w.k);
            return;
        }
        q.grow(rows * padded_k(w));
        scales.grow(rows * groups(w));
        sums.grow(rows * groups(w));
        // As many as `linear` keeps at once: of gate and up, two at least.
        if (w.kind == I12) panels.grow(std::max(PANELS_IN_L2, 2 * panel_bytes(unpacked(w, nullptr))));
    }
};

class Workspace {
  public:
    // One thread's scratch.
    Scratch& thread(int id) { return *threads_[id]; }
    Scratch& shared() { return shared_; }

    void set_threads(int count) {
        while (int(threads_.size()) < count) threads_.push_back(new Scratch);
    }

    // Room for `rows` rows of inputs of `w`, prepared by one thread or by each for itself (see `prepare`).
    void reserve(int threads, int64_t rows, const Weight& w) {
        const bool own = rows * w.k <= SMALL;
        if (!own) shared_.reserve(rows, w);
        for (int id = 0; id < threads; id++) threads_[id]->reserve(own ? rows : 1, w);
    }

    // Of a decoder's step, a row per token (`parts`: per part of a split decode).
    Block<float> hidden, picked, qkv, attended, inner, parts;

  private:
    std::vector<Scratch*> threads_;  // kept for the process's life
    Scratch shared_;
};

Workspace& workspace();

}  // namespace rm
