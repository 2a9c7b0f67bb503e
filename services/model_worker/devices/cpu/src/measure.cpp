// What the machine can do: the floors that benchmarks compare with.
#include "threads.h"
#include "weight.h"

namespace rm {
namespace {

float read_all(const float* from, int64_t count) {
    vf sums[8] = {};
    for (int64_t i = 0; i + 8 * VL <= count; i += 8 * VL)
        for (int j = 0; j < 8; j++) sums[j] += load(from + i + j * VL);
    for (int j = 1; j < 8; j++) sums[0] += sums[j];
    return sum(sums[0]);
}

}  // namespace
}  // namespace rm

using namespace rm;

// Reads `bytes` once, on all threads.
extern "C" __attribute__((visibility("default"))) float rm_read(const float* data, int64_t bytes) {
    const int64_t chunk = 64 << 10, count = bytes / 4;
    volatile float sink = 0.0f;
    const Turn turn;
    parallel(turn, [&](Team& team) {
        float total = 0.0f;
        int64_t begin, end;
        while (team.take((count + chunk - 1) / chunk, 4, begin, end))
            total += read_all(data + begin * chunk, std::min(count, end * chunk) - begin * chunk);
        sink = total;
    });
    return sink;
}

// `rounds` times 2 * MR products and sums of vectors per thread, nothing else: 4 * MR * VL * rounds operations each.
extern "C" __attribute__((visibility("default"))) float rm_multiply_add(int64_t rounds) {
    volatile float sink = 0.0f;
    const Turn turn;
    parallel(turn, [&](Team&) {
        vf sums[2 * MR], factor = splat(0.999f), term = splat(0.001f);
        for (auto& s : sums) s = splat(1.0f);
        for (int64_t i = 0; i < rounds; i++) {
            keep(factor);
#pragma GCC unroll 24
            for (auto& s : sums) s = s * factor + term;
        }
        for (int j = 1; j < 2 * MR; j++) sums[0] += sums[j];
        sink = sum(sums[0]);
    });
    return sink;
}
