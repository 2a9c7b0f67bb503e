// Softmax block by block, for one query (online softmax, arXiv:1805.02867).
#pragma once

#include <algorithm>
#include <cmath>

#include "attention.h"

namespace rm {

// Of the blocks so far: the largest score, and relative to it the sum of weights, and of weighted values [size].
struct Running {
    float &largest, &total;
    float* out;
    int64_t size;
};

// Scores [low, high) of a block of `padded` (a multiple of VL) become weights, the others 0. What was summed up before
// shrinks if the maximum grows.
inline void soften(float* scores, int64_t padded, int64_t low, int64_t high, Running so_far) {
    auto& [largest, total, out, size] = so_far;
    if (low >= high) {
        std::fill(scores, scores + padded, 0.0f);
        return;
    }
    for (int64_t i = 0; i < low; i++) scores[i] = -INFINITY;
    for (int64_t i = high; i < padded; i++) scores[i] = -INFINITY;
    vf best = load(scores);
    for (int64_t i = VL; i < padded; i += VL) best = max(best, load(scores + i));
    const float top = std::fmax(largest, max(best));
    if (top > largest) {
        const float shrink = largest == -INFINITY ? 0.0f : __builtin_expf(largest - top);
        total *= shrink;
        for (int64_t i = 0; i < size; i += VL) store(out + i, load(out + i) * shrink);
        largest = top;
    }
    vf sums = {};
    for (int64_t i = 0; i < padded; i += VL) {
        vf weight = exp(load(scores + i) - top);
        store(scores + i, weight);
        sums += weight;
    }
    total += sum(sums);
}

}  // namespace rm
