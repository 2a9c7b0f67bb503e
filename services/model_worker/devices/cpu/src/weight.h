// Packed weights: y = x W^T + b with W [n, k], stored for streaming.
//
// A panel holds NR outputs; panels follow one another. Within a panel, k runs outermost, so that a thread reads its
// share of a matrix as one stream:
//
//   F32, F16   k:            NR elements
//   BF16       k / 2:        NR dwords, low half k even, high half k odd: a shift and a mask make floats of them,
//                            and it is the order in which AVX512-BF16 and AMX want pairs
//   I12        k / group:    NR scales (bf16), then group / 4: NR fours of k, 12 bits each, see `int12.h`
//   I16        k / group:    NR scales (bf16), then group / 2: NR pairs of int16. What I12 is unpacked to, plus 2048
//   I8         k / group:    NR scales (bf16), then group / 2: NR pairs of int8
//   I4         k / group:    NR scales (bf16), then group / 8: VL dwords for the first half of the outputs, VL for
//                            the second; nibble q of a dword's low (high) half is k = 2q (2q + 1), plus 8
//
// k is padded with zeros: to 2 (BF16) or to the group.
#pragma once

#include "simd.h"

namespace rm {

enum Kind : int32_t { F32 = 0, F16 = 1, BF16 = 2, I8 = 3, I4 = 4, I12 = 5, I16 = 6 };

constexpr int MAX_GROUP = 128;
// Of weights of 12 bits and of their inputs: MAX_GROUP products of the two fit 31 bits, and so does the inputs' sum
// times the weights' offset.
constexpr int32_t LIMIT12 = 2047, LIMIT_INPUT12 = 8191;

// Shared with Python (ctypes); see `weights.py`.
struct Weight {
    uint8_t* data;
    const float* bias;  // [panels * NR] in the panels' order, or null
    int32_t kind;
    int32_t panels;
    int32_t k;
    int32_t group;  // k per scale; 0 for floats
};

// What is added to a weight before it is stored, so that it has no sign to extend.
inline int32_t offset(const Weight& w) { return w.kind == I4 ? 8 : w.kind == I12 || w.kind == I16 ? 2048 : 0; }

inline bool quantized(const Weight& w) { return w.kind >= I8; }
inline int64_t groups(const Weight& w) { return (w.k + w.group - 1) / w.group; }
inline int64_t padded_k(const Weight& w) { return quantized(w) ? groups(w) * w.group : w.k + (w.k & 1); }

inline int64_t group_bytes(const Weight& w) {
    const int64_t bits = w.kind == I4 ? 4 : w.kind == I8 ? 8 : w.kind == I12 ? 12 : 16;
    return NR * 2 + int64_t(NR) * w.group * bits / 8;
}

inline int64_t panel_bytes(const Weight& w) {
    switch (w.kind) {
        case F32: return int64_t(w.k) * NR * 4;
        case F16: return int64_t(w.k) * NR * 2;
        case BF16: return padded_k(w) * NR * 2;
        default: return groups(w) * group_bytes(w);
    }
}

// Rows of activations, as floats or, for quantized weights, as int16 with a scale per (row, group).
struct Act {
    const float* x;
    int64_t stride;
    const int16_t* q = nullptr;
    const float* scale = nullptr;
    const int32_t* sum = nullptr;  // of q over the group times the weights' negative offset
    int64_t q_stride = 0;
    int64_t groups = 0;

    Act from(int64_t row) const {
        return {x + row * stride,   stride,   q + row * q_stride, scale + row * groups,
                sum + row * groups, q_stride, groups};
    }
};

// `w`, which is I12, as I16 with its panels at `data`.
inline Weight unpacked(const Weight& w, uint8_t* data) { return {data, w.bias, I16, w.panels, w.k, w.group}; }

// One tile: `rows` <= MR rows of `act` times panel `panel` -> out [rows, NR]. While it works it prefetches
// `ahead`, `ahead_bytes` in all. If `left` is given, `w` is I12 and its panel is left there as I16.
void tile(const Weight& w, int64_t panel, const Act& act, int rows, float* out, const uint8_t* ahead,
          int64_t ahead_bytes, uint8_t* left = nullptr);

// out [rows, NR] (+)= x [rows, k] B [k, NR], all floats; `out` has row stride `out_stride`.
void tile_floats(const float* x, int64_t x_stride, const float* b, int64_t k, int rows, float* out, int64_t out_stride,
                 bool add);

// Panels first, first + step, ... from source rows 0 to n [n, k]; what pads the last one is zero.
void pack(const Weight& w, const void* source, int32_t kind, int64_t n, int64_t first, int64_t step);

// Row `row` of a packed matrix, k floats.
void unpack_row(const Weight& w, int64_t row, float* out);

// `count` elements from element `at` of a plain array.
void widen_row(const void* source, int32_t kind, int64_t at, int64_t count, float* out);

// Rounds a row of inputs of `w` to int16 by groups, the largest of each to the end of the range; pads with zeros. A
// group with a number that is not finite gets the scale NaN.
void quantize_row(const Weight& w, const float* x, int16_t* q, float* scale, int32_t* sum);

}  // namespace rm
