// Twelve bits of sixteen: a step of four k takes three vectors of memory in place of four.
//
// Pairs of k 0, 1 and 2, 3 of NR outputs are four vectors: A, B of the first pair, C, D of the second. Numbers are
// stored plus 2048, so that they have no sign to extend. A, B and C lie in the lower 12 bits of the three vectors' 16,
// D in the upper 4: its lowest bits with A.
#pragma once

#include "weight.h"

namespace rm {

constexpr int64_t STEP12_BYTES = NR * 6;
constexpr int32_t OFFSET12 = 2048;

typedef uint16_t vh __attribute__((vector_size(VL * 4)));

inline vi low12(vi word) { return word & 0x0fff0fff; }

inline vi high12(vi a, vi b, vi c) {
    return (vi)((vh)a >> 12 | ((vh)b >> 8 & uint16_t(0xf0)) | ((vh)c >> 4 & uint16_t(0xf00)));
}

// Four vectors of numbers from -2048 to 2047 to three.
inline void store12(const vi (&values)[4], uint8_t* to) {
    vh with[4];
    for (int i = 0; i < 4; i++) with[i] = (vh)values[i] + uint16_t(OFFSET12);
    const vh d = with[3];
    const vh words[3] = {with[0] | d << 12, with[1] | (d << 8 & uint16_t(0xf000)),
                         with[2] | (d << 4 & uint16_t(0xf000))};
    memcpy(to, words, sizeof words);
}

// The number of one output's k: `at` of a group whose steps begin at `from`.
inline int32_t number12(const uint8_t* from, int64_t at, int64_t column) {
    const uint16_t* words = reinterpret_cast<const uint16_t*>(from + at / 4 * STEP12_BYTES);
    const int64_t vector = at / 2 % 2 * 2 + column / VL, lane = column % VL * 2 + at % 2;
    const uint16_t *a = words + lane, *b = a + VL * 2, *c = b + VL * 2;
    const int32_t value = vector < 3 ? words[vector * VL * 2 + lane] & 0xfff : *a >> 12 | *b >> 12 << 4 | *c >> 12 << 8;
    return value - OFFSET12;
}

}  // namespace rm
