// Rounding groups of floats to integers of a scale.
#pragma once

#include "weight.h"

namespace rm {

// Bits of the largest magnitude of `count` (a multiple of VL) floats. Those of an infinity or NaN are larger than all
// others'.
inline uint32_t largest_bits(const float* x, int64_t count) {
    vi best = {};
    for (int64_t i = 0; i < count; i += VL) {
        vi bits = load_bits(x + i) & 0x7fffffff;
        best = bits > best ? bits : best;
    }
    int32_t out = 0;
    for (int i = 0; i < VL; i++) out = best[i] > out ? best[i] : out;
    return uint32_t(out);
}

// To the nearest integers, of magnitude below 2^22; ties to even.
inline vi round_to_int(vf x) { return as_int(x + 12582912.0f) - 0x4b400000; }

// x * inverse, rounded and clamped to +-limit. Returns the sum.
inline int32_t round_group(const float* x, int64_t count, float inverse, int32_t limit, int16_t* out) {
    typedef int16_t narrow __attribute__((vector_size(VL * 2)));
    vi total = {};
    for (int64_t i = 0; i < count; i += VL) {
        vi value = round_to_int(load(x + i) * inverse);
        value = value > limit ? splat(limit) : value < -limit ? splat(-limit) : value;
        total += value;
        narrow small = __builtin_convertvector(value, narrow);
        memcpy(out + i, &small, sizeof small);
    }
    int32_t sum = 0;
    for (int i = 0; i < VL; i++) sum += total[i];
    return sum;
}

}  // namespace rm
