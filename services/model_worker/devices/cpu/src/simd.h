// One vector type, `vf`: VL floats. The code above this file is written for any VL; only the loads that convert,
// and the two integer products, are spelled per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace rm {

#if defined(RM_WIDE) || (defined(__AVX512F__) && defined(__AVX512BW__))
#ifndef RM_WIDE  // what AVX-512 runs, with vectors that the compiler makes of narrower ones: for tests elsewhere
#define RM_AVX512 1
#endif
constexpr int VL = 16;
constexpr int MR = 12;  // rows of a tile: 24 sums of 32 registers
#else
#if defined(__AVX2__)
#define RM_AVX2 1
#endif
constexpr int VL = 8;
constexpr int MR = 6;  // 12 sums of 16 registers
#endif
constexpr int NR = 2 * VL;  // outputs of a tile: a panel's width

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef float vf_mem __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi_mem __attribute__((vector_size(VL * 4), aligned(1), may_alias));

inline vf load(const float* p) { return *reinterpret_cast<const vf_mem*>(p); }
inline void store(float* p, vf v) { *reinterpret_cast<vf_mem*>(p) = v; }
inline vi load_bits(const void* p) { return *reinterpret_cast<const vi_mem*>(p); }
inline void store_bits(void* p, vi v) { *reinterpret_cast<vi_mem*>(p) = v; }
inline vf as_float(vi v) { return (vf)v; }
inline vi as_int(vf v) { return (vi)v; }
inline vf splat(float x) { return x - vf{}; }
inline vi splat(int32_t x) { return x - vi{}; }
inline vf to_float(vi v) { return __builtin_convertvector(v, vf); }

// The value is in a register here, whatever the compiler had in mind: it likes to start many products before it adds
// the first, and then has no registers left for the sums.
template <class V>
inline void keep(V& v) {
#if defined(RM_AVX512) || defined(RM_AVX2)
    asm volatile("" : "+v"(v));
#else
    (void)v;
#endif
}

// -- 16-bit floats --

typedef uint16_t bf16;  // bits of a bfloat16
typedef uint16_t fp16;  // bits of an IEEE half

inline float from_bf16(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

inline bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);  // NaN stays NaN
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_fp16(fp16 x) {
#ifdef __F16C__
    return _cvtsh_ss(x);
#else
    _Float16 half;
    memcpy(&half, &x, 2);
    return float(half);
#endif
}

inline fp16 to_fp16(float x) {
#ifdef __F16C__
    return _cvtss_sh(x, 0);
#else
    _Float16 half = _Float16(x);
    fp16 out;
    memcpy(&out, &half, 2);
    return out;
#endif
}

struct Bf16 {
    bf16 bits;
};
struct Fp16 {
    fp16 bits;
};

// The scalar of a memory type and back.
inline float widen(float x) { return x; }
inline float widen(Bf16 x) { return from_bf16(x.bits); }
inline float widen(Fp16 x) { return from_fp16(x.bits); }
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, Bf16* out) { out->bits = to_bf16(x); }
inline void narrow(float x, Fp16* out) { out->bits = to_fp16(x); }

// VL consecutive elements as floats.
inline vf load(const Bf16* p) {
#ifdef RM_AVX512
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(RM_AVX2)
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
    vf out;
    for (int i = 0; i < VL; i++) out[i] = from_bf16(p[i].bits);
    return out;
#endif
}

inline vf load(const Fp16* p) {
#ifdef RM_AVX512
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(RM_AVX2) && defined(__F16C__)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
    vf out;
    for (int i = 0; i < VL; i++) out[i] = from_fp16(p[i].bits);
    return out;
#endif
}

// -- integer products: 2 * VL int16 against 2 * VL int16, summed in pairs into VL int32, modulo 2^32 --

inline vi madd(vi sum, vi a, vi b) {
#if defined(RM_AVX512) && defined(__AVX512VNNI__)
    return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(RM_AVX512)
    return (vi)((vu)sum + (vu)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif defined(RM_AVX2) && defined(__AVXVNNI__)
    return (vi)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(RM_AVX2)
    return (vi)((vu)sum + (vu)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#else
    vi low = ((a << 16) >> 16) * ((b << 16) >> 16);
    return (vi)((vu)sum + (vu)low + (vu)((a >> 16) * (b >> 16)));
#endif
}

// 2 * VL int8 as int16 lanes.
inline vi widen_int8(const int8_t* p) {
#ifdef RM_AVX512
    return (vi)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
#elif defined(RM_AVX2)
    return (vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
#else
    vi out;
    for (int i = 0; i < VL; i++) out[i] = (int32_t(uint32_t(int32_t(p[2 * i + 1])) << 16)) | (p[2 * i] & 0xffff);
    return out;
#endif
}

// -- reductions and functions --

inline float sum(vf v) {
    float lanes[VL];
    store(lanes, v);
    for (int width = VL / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

inline vf max(vf a, vf b) { return a > b ? a : b; }

inline float max(vf v) {
    float best = v[0];
    for (int i = 1; i < VL; i++) best = v[i] > best ? v[i] : best;
    return best;
}

// The sums of four vectors at once.
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_mem __attribute__((vector_size(16), aligned(4), may_alias));

inline v4 fold(vf v) {
    v4 parts[VL / 4];
    memcpy(parts, &v, sizeof v);
    v4 out = parts[0];
    for (int i = 1; i < VL / 4; i++) out += parts[i];
    return out;
}

inline v4 sum4(vf a, vf b, vf c, vf d) {
    typedef int32_t i4 __attribute__((vector_size(16)));
    v4 w = fold(a), x = fold(b), y = fold(c), z = fold(d);
    v4 wx = __builtin_shuffle(w, x, i4{0, 4, 1, 5}) + __builtin_shuffle(w, x, i4{2, 6, 3, 7});  // w x w x
    v4 yz = __builtin_shuffle(y, z, i4{0, 4, 1, 5}) + __builtin_shuffle(y, z, i4{2, 6, 3, 7});
    return __builtin_shuffle(wx, yz, i4{0, 1, 4, 5}) + __builtin_shuffle(wx, yz, i4{2, 3, 6, 7});
}

// e^x within 2 ulp; 0 below -87, NaN for NaN.
inline vf exp(vf x) {
    const float low = -87.0f;
    vf clamped = x < low ? splat(low) : (x > 88.0f ? splat(88.0f) : x);
    vf shifted = clamped * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    vf n = shifted - 12582912.0f;
    vf r = clamped - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vf p = splat(1.98756936e-4f);
    p = p * r + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666657e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    vi exponent = (as_int(shifted) - 0x4b400000 + 127) << 23;
    vf out = p * as_float(exponent);
    return x < low ? vf{} : out;
}

inline vf silu(vf x) { return x / (1.0f + exp(-x)); }

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace rm
