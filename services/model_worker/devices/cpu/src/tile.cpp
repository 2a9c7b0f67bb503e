// The micro-kernels: MR x NR sums in registers, one pass over k.
#include <algorithm>

#include "int12.h"

namespace rm {
namespace {

// Prefetches `bytes` from `at`, evenly over `steps` calls.
struct Ahead {
    const uint8_t* at;
    int64_t step;

    Ahead(const uint8_t* at, int64_t bytes, int64_t steps) : at(at), step(steps ? (bytes + steps - 1) / steps : 0) {}
    void operator()() {
        prefetch(at);
        if (step > 64) prefetch(at + 64);
        if (step > 128) prefetch(at + 128);
        at += step;
    }
};

// Loops over a tile's rows must be unrolled, all of them: else the compiler keeps the sums in memory.
template <int M, class V>
inline void clear(V (&sums)[M][2]) {
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) sums[m][0] = sums[m][1] = V{};
}

template <int M>
inline void store_tile(const vf (&sums)[M][2], float* out, int64_t stride) {
#pragma GCC unroll 12
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
    vf sums[M][2];
    clear(sums);
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
    vf sums[M][2];
    clear(sums);
    sum_plain<M>(sums, reinterpret_cast<const T*>(panel), act.x, act.stride, w.k, ahead);
    store_tile<M>(sums, out, NR);
}

template <int M>
void tile_add(const float* x, int64_t x_stride, const float* b, int64_t k, float* out, int64_t out_stride, bool add) {
    vf sums[M][2];
    clear(sums);
    if (add) {
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) {
            sums[m][0] = load(out + m * out_stride);
            sums[m][1] = load(out + m * out_stride + VL);
        }
    }
    for (; k > 0; k--, x++, b += NR) add_outer<M>(sums, x, x_stride, load(b), load(b + VL));
    store_tile<M>(sums, out, out_stride);
}

// A tile's rows of int16. Three share a pointer: an instruction can address base, base + stride and base + 2 * stride,
// and what the loop below is short of is room for instructions, not multipliers.
template <int M>
struct Inputs {
    const char* base[(M + 2) / 3];
    int64_t stride;  // bytes

    Inputs(const int16_t* q, int64_t elements) : stride(elements * 2) {
        for (int i = 0; i < (M + 2) / 3; i++) base[i] = reinterpret_cast<const char*>(q + 3 * i * elements);
    }
    vi pair(int m, int number) const {
        int32_t bits;
        memcpy(&bits, base[m / 3] + m % 3 * stride + number * 4, 4);
        return splat(bits);
    }
    void advance(int elements) {
#pragma GCC unroll 4
        for (int i = 0; i < (M + 2) / 3; i++) base[i] += elements * 2;
    }
};

template <int M>
inline void add_pairs(vi (&sums)[M][2], const Inputs<M>& rows, int number, vi b0, vi b1) {
    keep(b0);  // loaded once, not with each product: loads are what runs out next
    keep(b1);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        vi a = rows.pair(m, number);
        sums[m][0] = madd(sums[m][0], a, b0);
        keep(sums[m][0]);
        sums[m][1] = madd(sums[m][1], a, b1);
        keep(sums[m][1]);
    }
}

// Integers that one step of k takes from a panel: `add` multiplies them with a tile's rows.
struct Int16 {
    static constexpr int STEP = 8, BYTES = NR * 16;

    template <int M>
    void add(vi (&sums)[M][2], const uint8_t* panel, const Inputs<M>& rows) const {
#pragma GCC unroll 4
        for (int pair = 0; pair < 4; pair++, panel += NR * 4)
            add_pairs<M>(sums, rows, pair, load_bits(panel), load_bits(panel + VL * 4));
    }
};

struct Int12 {
    static constexpr int STEP = 8, BYTES = 2 * STEP12_BYTES;

    template <int M>
    void add(vi (&sums)[M][2], const uint8_t* panel, const Inputs<M>& rows) const {
#pragma GCC unroll 2
        for (int pair = 0; pair < 4; pair += 2, panel += STEP12_BYTES) {
            const vi a = load_bits(panel), b = load_bits(panel + VL * 4), c = load_bits(panel + VL * 8);
            add_pairs<M>(sums, rows, pair, low12(a), low12(b));
            add_pairs<M>(sums, rows, pair + 1, low12(c), high12(a, b, c));
        }
    }
};

// Int12 that leaves what it unpacks to be read as Int16.
struct Int12Left {
    static constexpr int STEP = 8, BYTES = 2 * STEP12_BYTES;
    uint8_t* left;

    vi leave(int at, vi value) const {
        store_bits(left + at * VL * 4, value);
        return value;
    }
    template <int M>
    void add(vi (&sums)[M][2], const uint8_t* panel, const Inputs<M>& rows) {
#pragma GCC unroll 2
        for (int pair = 0; pair < 4; pair += 2, panel += STEP12_BYTES, left += NR * 8) {
            const uint8_t *a = panel, *b = a + VL * 4, *c = b + VL * 4;
            add_pairs<M>(sums, rows, pair, leave(0, low12(load_bits(a))), leave(1, low12(load_bits(b))));
            const vi last = high12(load_bits(a), load_bits(b), load_bits(c));  // loaded again: registers are few
            add_pairs<M>(sums, rows, pair + 1, leave(2, low12(load_bits(c))), leave(3, last));
        }
    }
};

struct Int8 {
    static constexpr int STEP = 4, BYTES = NR * 4;

    template <int M>
    void add(vi (&sums)[M][2], const uint8_t* panel, const Inputs<M>& rows) {
        const int8_t* b = reinterpret_cast<const int8_t*>(panel);
        add_pairs<M>(sums, rows, 0, widen_int8(b), widen_int8(b + NR));
        add_pairs<M>(sums, rows, 1, widen_int8(b + 2 * NR), widen_int8(b + 3 * NR));
    }
};

struct Int4 {
    static constexpr int STEP = 8, BYTES = NR * 4;

    template <int M>
    void add(vi (&sums)[M][2], const uint8_t* panel, const Inputs<M>& rows) {
        const int32_t mask = 0x000f000f;
#pragma GCC unroll 4
        for (int nibble = 0; nibble < 4; nibble++) {
            vi b0 = (load_bits(panel) >> (4 * nibble)) & mask;
            vi b1 = (load_bits(panel + VL * 4) >> (4 * nibble)) & mask;
            add_pairs<M>(sums, rows, nibble, b0, b1);
        }
    }
};

// Exact integer sums over group `g`, then one rounding: sum * scale of the weights * scale of the row. Adds to `out`.
template <int M, class Ints>
__attribute__((always_inline)) inline void add_group(Ints ints, const uint8_t* group, int64_t size, const Act& act,
                                                     int64_t g, float* out, Ahead& ahead) {
    Inputs<M> rows(act.q + g * size, act.q_stride);
    const uint8_t* data = group + NR * 2;
    vi sums[M][2];
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) sums[m][0] = sums[m][1] = splat(act.sum[m * act.groups + g]);
    for (int64_t i = 0; i < size; i += Ints::STEP, data += Ints::BYTES) {
        ahead();
        ints.template add<M>(sums, data, rows);
        rows.advance(Ints::STEP);
    }
    const Bf16* scales = reinterpret_cast<const Bf16*>(group);
    vf s0 = load(scales), s1 = load(scales + VL);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        float scale = act.scale[m * act.groups + g];
        store(out + m * NR, load(out + m * NR) + to_float(sums[m][0]) * (s0 * scale));
        store(out + m * NR + VL, load(out + m * NR + VL) + to_float(sums[m][1]) * (s1 * scale));
    }
}

template <int M, class Ints>
void tile_int(const Weight& w, const uint8_t* panel, const Act& act, float* out, Ahead ahead) {
    std::fill_n(out, M * NR, 0.0f);
    const int64_t count = groups(w), size = w.group, bytes = group_bytes(w);
    for (int64_t g = 0; g < count; g++, panel += bytes) add_group<M>(Ints(), panel, size, act, g, out, ahead);
}

// Leaves the panel as I16.
template <int M>
void tile_left(const Weight& w, const uint8_t* panel, const Act& act, float* out, Ahead ahead, uint8_t* left) {
    std::fill_n(out, M * NR, 0.0f);
    const int64_t count = groups(w), size = w.group, bytes = group_bytes(w);
    for (int64_t g = 0; g < count; g++, panel += bytes) {
        std::copy_n(panel, NR * 2, left);
        left += NR * 2;
        add_group<M>(Int12Left{left}, panel, size, act, g, out, ahead);
        left += size * NR * 2;
    }
}

using Tile = void (*)(const Weight&, const uint8_t*, const Act&, float*, Ahead);
using LeftTile = void (*)(const Weight&, const uint8_t*, const Act&, float*, Ahead, uint8_t*);
using FloatTile = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

struct Table {
    Tile by_kind[7];
    LeftTile left;
    FloatTile floats;
};

template <int M>
constexpr Table row() {
    return {{tile_plain<M, float>, tile_plain<M, Fp16>, tile_bf16<M>,  //
             tile_int<M, Int8>, tile_int<M, Int4>, tile_int<M, Int12>, tile_int<M, Int16>},
            tile_left<M>,
            tile_add<M>};
}

const Table TABLE[] = {
    {}, row<1>(), row<2>(), row<3>(), row<4>(), row<5>(), row<6>(),
#if defined(RM_AVX512) || defined(RM_WIDE)
    row<7>(), row<8>(), row<9>(), row<10>(), row<11>(), row<12>(),
#endif
};
static_assert(sizeof TABLE / sizeof TABLE[0] == MR + 1);

}  // namespace

void tile(const Weight& w, int64_t panel, const Act& act, int rows, float* out, const uint8_t* ahead,
          int64_t ahead_bytes, uint8_t* left) {
    static const int64_t k_per_prefetch[] = {1, 1, 2, Int8::STEP, Int4::STEP, Int12::STEP, Int16::STEP};
    Ahead fetch(ahead, ahead_bytes, w.k / k_per_prefetch[w.kind]);
    const uint8_t* data = w.data + panel * panel_bytes(w);
    if (left) return TABLE[rows].left(w, data, act, out, fetch, left);
    TABLE[rows].by_kind[w.kind](w, data, act, out, fetch);
}

void tile_floats(const float* x, int64_t x_stride, const float* b, int64_t k, int rows, float* out, int64_t out_stride,
                 bool add) {
    TABLE[rows].floats(x, x_stride, b, k, out, out_stride, add);
}

}  // namespace rm
