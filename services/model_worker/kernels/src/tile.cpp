// The micro-kernels: MR x NR sums in registers, one pass over k.
#include <cmath>

#include "weight.h"

namespace rm {
namespace {

// Prefetches `bytes` from `at`, evenly over `steps` calls.
struct Ahead {
    const uint8_t* at;
    int64_t step;

    Ahead(const uint8_t* at, int64_t bytes, int64_t steps) : at(at), step(steps ? (bytes + steps - 1) / steps : 0) {}
    void operator()() {
        prefetch(at);
        at += step;
    }
};

template <int M>
inline void store_tile(const vf (&sums)[M][2], float* out, int64_t stride) {
    for (int m = 0; m < M; m++) {
        store(out + m * stride, sums[m][0]);
        store(out + m * stride + VL, sums[m][1]);
    }
}

template <int M>
inline void add_outer(vf (&sums)[M][2], const float* x, int64_t stride, vf b0, vf b1) {
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        vf a = splat(x[m * stride]);
        sums[m][0] += a * b0;
        sums[m][1] += a * b1;
    }
}

template <int M>
void tile_bf16(const Weight& w, const uint8_t* panel, const Act& act, float* out, Ahead ahead) {
    vf sums[M][2] = {};
    const float* x = act.x;
    int64_t stride = act.stride;
    const int32_t high = int32_t(0xffff0000);
    for (int64_t pair = w.k / 2; pair > 0; pair--, x += 2, panel += NR * 4) {
        ahead();
        vi b0 = load_bits(panel), b1 = load_bits(panel + VL * 4);
        add_outer<M>(sums, x, stride, as_float(b0 << 16), as_float(b1 << 16));
        add_outer<M>(sums, x + 1, stride, as_float(b0 & high), as_float(b1 & high));
    }
    if (w.k & 1) {
        vi b0 = load_bits(panel), b1 = load_bits(panel + VL * 4);
        add_outer<M>(sums, x, stride, as_float(b0 << 16), as_float(b1 << 16));
    }
    store_tile<M>(sums, out, NR);
}

template <int M, class T>
inline void sum_plain(vf (&sums)[M][2], const T* b, const float* x, int64_t stride, int64_t k, Ahead ahead) {
    for (; k > 0; k--, x++, b += NR) {
        ahead();
        add_outer<M>(sums, x, stride, load(b), load(b + VL));
    }
}

template <int M, class T>
void tile_plain(const Weight& w, const uint8_t* panel, const Act& act, float* out, Ahead ahead) {
    vf sums[M][2] = {};
    sum_plain<M>(sums, reinterpret_cast<const T*>(panel), act.x, act.stride, w.k, ahead);
    store_tile<M>(sums, out, NR);
}

template <int M>
void tile_add(const float* x, int64_t x_stride, const float* b, int64_t k, float* out, int64_t out_stride, bool add) {
    vf sums[M][2] = {};
    if (add)
        for (int m = 0; m < M; m++) {
            sums[m][0] = load(out + m * out_stride);
            sums[m][1] = load(out + m * out_stride + VL);
        }
    sum_plain<M>(sums, b, x, x_stride, k, Ahead(nullptr, 0, 0));
    store_tile<M>(sums, out, out_stride);
}

inline int32_t pair_at(const int16_t* q) {
    int32_t bits;
    memcpy(&bits, q, 4);
    return bits;
}

template <int M>
inline void add_pairs(vi (&sums)[M][2], const int16_t* q, int64_t stride, vi b0, vi b1) {
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        vi a = splat(pair_at(q + m * stride));
        sums[m][0] = madd(sums[m][0], a, b0);
        keep(sums[m][0]);
        sums[m][1] = madd(sums[m][1], a, b1);
        keep(sums[m][1]);
    }
}

// Exact integer sums over one group of k, then one rounding: sum * scale of the weights * scale of the row.
template <int M, bool FOUR>
void tile_int(const Weight& w, const uint8_t* panel, const Act& act, float* out, Ahead ahead) {
    vf totals[M][2] = {};
    const int64_t count = groups(w), size = w.group;
    for (int64_t g = 0; g < count; g++) {
        const Bf16* scales = reinterpret_cast<const Bf16*>(panel);
        panel += NR * 2;
        const int16_t* q = act.q + g * size;
        vi sums[M][2];
        for (int m = 0; m < M; m++) {
            int32_t start = FOUR ? -8 * act.sum[m * act.groups + g] : 0;
            sums[m][0] = sums[m][1] = splat(start);
        }
        if (FOUR) {
            const int32_t mask = 0x000f000f;
            for (int64_t i = 0; i < size; i += 8, panel += NR * 4) {
                ahead();
                for (int nibble = 0; nibble < 4; nibble++) {
                    vi b0 = (load_bits(panel) >> (4 * nibble)) & mask;
                    vi b1 = (load_bits(panel + VL * 4) >> (4 * nibble)) & mask;
                    add_pairs<M>(sums, q + i + 2 * nibble, act.q_stride, b0, b1);
                }
            }
        } else {
            for (int64_t i = 0; i < size; i += 4, panel += NR * 4) {
                ahead();
                const int8_t* b = reinterpret_cast<const int8_t*>(panel);
                add_pairs<M>(sums, q + i, act.q_stride, widen_int8(b), widen_int8(b + NR));
                add_pairs<M>(sums, q + i + 2, act.q_stride, widen_int8(b + 2 * NR), widen_int8(b + 3 * NR));
            }
        }
        vf s0 = load(scales), s1 = load(scales + VL);
        for (int m = 0; m < M; m++) {
            float scale = act.scale[m * act.groups + g];
            totals[m][0] += to_float(sums[m][0]) * (s0 * scale);
            totals[m][1] += to_float(sums[m][1]) * (s1 * scale);
        }
    }
    store_tile<M>(totals, out, NR);
}

using Tile = void (*)(const Weight&, const uint8_t*, const Act&, float*, Ahead);
using FloatTile = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

struct Table {
    Tile by_kind[5];
    FloatTile floats;
};

template <int M>
constexpr Table row() {
    return {{tile_plain<M, float>, tile_plain<M, Fp16>, tile_bf16<M>, tile_int<M, false>, tile_int<M, true>}, tile_add<M>};
}

const Table TABLE[] = {
    {}, row<1>(), row<2>(), row<3>(), row<4>(), row<5>(), row<6>(),
#if defined(RM_AVX512) || defined(RM_WIDE)
    row<7>(), row<8>(), row<9>(), row<10>(), row<11>(), row<12>(),
#endif
};
static_assert(sizeof TABLE / sizeof TABLE[0] == MR + 1);

}  // namespace

void tile(const Weight& w, int64_t panel, const Act& act, int rows, float* out, const uint8_t* ahead, int64_t ahead_bytes) {
    static const int64_t k_per_prefetch[] = {1, 1, 2, 4, 8};
    Ahead fetch(ahead, ahead_bytes, w.k / k_per_prefetch[w.kind]);
    TABLE[rows].by_kind[w.kind](w, w.data + panel * panel_bytes(w), act, out, fetch);
}

void tile_floats(const float* x, int64_t x_stride, const float* b, int64_t k, int rows, float* out, int64_t out_stride,
                 bool add) {
    TABLE[rows].floats(x, x_stride, b, k, out, out_stride, add);
}

void quantize_row(const float* x, int64_t k, int64_t group, int16_t* q, float* scale, int32_t* sum) {
    for (int64_t start = 0, g = 0; start < k; start += group, g++) {
        const int64_t count = k - start < group ? k - start : group;
        float largest = 0.0f;
        bool finite = true;
        for (int64_t i = 0; i < count; i++) {
            float size = std::fabs(x[start + i]);
            largest = size > largest ? size : largest;
            finite &= size <= 3.4e38f;
        }
        float inverse = largest > 1e-30f && finite ? 32767.0f / largest : 0.0f;
        int32_t total = 0;
        for (int64_t i = 0; i < count; i++) {
            int32_t value = finite ? int32_t(std::nearbyint(x[start + i] * inverse)) : 0;
            q[start + i] = int16_t(value);
            total += value;
        }
        for (int64_t i = count; i < group; i++) q[start + i] = 0;
        scale[g] = finite ? largest / 32767.0f : NAN;  // 0 * NaN: what is not finite makes the row's result NaN
        sum[g] = total;
    }
}

}  // namespace rm
