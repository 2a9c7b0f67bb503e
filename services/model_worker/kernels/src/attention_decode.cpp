// One query per head: memory-bound. All query heads of a kv head go together, so keys and values are read once.
#include "softmax.h"

namespace rm {
namespace {

// scores[g, i] = q[g] . keys[i] for `count` keys, a multiple of 4 (the last may repeat), G query heads.
template <int G, class T>
void score(const float* q, int64_t size, const T* const* keys, int64_t count, float* scores) {
    constexpr int TOGETHER = G == 4 ? 2 : 4;
    for (int64_t i = 0; i < count; i += TOGETHER) {
        vf sums[G][TOGETHER] = {};
        for (int64_t d = 0; d < size; d += VL) {
            vf key[TOGETHER];
            for (int j = 0; j < TOGETHER; j++) key[j] = load(keys[i + j] + d);
            for (int g = 0; g < G; g++) {
                vf query = load(q + g * size + d);
                for (int j = 0; j < TOGETHER; j++) sums[g][j] += query * key[j];
            }
        }
        if constexpr (G == 4) {
            for (int j = 0; j < 2; j++) {
                v4 four = sum4(sums[0][j], sums[1][j], sums[2][j], sums[3][j]);
                for (int g = 0; g < 4; g++) scores[g * KEYS + i + j] = four[g];
            }
        } else {
            for (int g = 0; g < G; g++)
                *reinterpret_cast<v4_mem*>(scores + g * KEYS + i) = sum4(sums[g][0], sums[g][1], sums[g][2], sums[g][3]);
        }
    }
}

// out[g] += sum over i of weights[g, i] values[i], in W vectors from element `at`.
template <int G, int W, class T>
void weigh_part(const T* const* values, int64_t count, const float* weights, float* out, int64_t size, int64_t at) {
    vf sums[G][W];
    for (int g = 0; g < G; g++)
        for (int w = 0; w < W; w++) sums[g][w] = load(out + g * size + at + w * VL);
    for (int64_t i = 0; i < count; i++) {
        vf value[W];
        for (int w = 0; w < W; w++) value[w] = load(values[i] + at + w * VL);
        for (int g = 0; g < G; g++) {
            vf weight = splat(weights[g * KEYS + i]);
            for (int w = 0; w < W; w++) sums[g][w] += weight * value[w];
        }
    }
    for (int g = 0; g < G; g++)
        for (int w = 0; w < W; w++) store(out + g * size + at + w * VL, sums[g][w]);
}

template <int G, class T>
void weigh(const T* const* values, int64_t count, const float* weights, float* out, int64_t size) {
    constexpr int W = 8 / G;
    int64_t at = 0;
    for (; at + W * VL <= size; at += W * VL) weigh_part<G, W>(values, count, weights, out, size, at);
    for (; at < size; at += VL) weigh_part<G, 1>(values, count, weights, out, size, at);
}

template <class T>
struct Decode {
    const Item& item;
    const Sequences& sequences;
    const Pool& pool;
    int64_t kv_head;
    const float* q;
    float *scores, *out, *largest, *total;

    template <int G>
    void heads(int64_t first, const T* const* keys, const T* const* values, int64_t count, int64_t padded) {
        const int64_t size = pool.head_dim;
        score<G>(q + first * size, size, keys, padded, scores);
        float* to = out + first * size;
        for (int g = 0; g < G; g++)
            soften(scores + g * KEYS, (count + VL - 1) / VL * VL, 0, count, largest[first + g], total[first + g], to + g * size, size);
        weigh<G>(values, count, scores, to, size);
    }

    void run(int64_t begin, int64_t end) {
        const T *keys[KEYS + 4], *values[KEYS + 4];
        const int64_t group = pool.group();
        for (int64_t at = begin; at < end; at += KEYS) {
            const int64_t count = std::min(KEYS, end - at), padded = (count + 3) / 4 * 4;
            key_rows<T>(sequences, pool, item.sequence, kv_head, at, count, keys, values);
            for (int64_t i = count; i < padded; i++) keys[i] = keys[count - 1];
            const int64_t line = 64 / sizeof(T);
            for (int64_t i = 0; i < count; i++)
                for (int64_t d = 0; d < pool.head_dim; d += line) prefetch(values[i] + d);
            int64_t g = 0;
            for (; g + 4 <= group; g += 4) heads<4>(g, keys, values, count, padded);
            if (g + 2 <= group) {
                heads<2>(g, keys, values, count, padded);
                g += 2;
            }
            if (g < group) heads<1>(g, keys, values, count, padded);
        }
    }
};

template <class T>
void decode(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q, float* out,
            float* part, int64_t window, float* scratch) {
    const int64_t group = pool.group(), size = pool.head_dim;
    float* scores = scratch;
    float* result = scores + 4 * KEYS;
    float* largest = result + group * size;
    float* total = largest + group;
    std::fill(result, result + group * size, 0.0f);
    std::fill(largest, largest + group, -INFINITY);
    std::fill(total, total + group, 0.0f);
    const int64_t begin = window ? std::max(item.key_begin, item.position + 1 - window) : item.key_begin;
    Decode<T>{item, sequences, pool, kv_head, q, scores, result, largest, total}.run(begin, item.key_end);
    if (part) {
        std::copy(largest, largest + group, part);
        std::copy(total, total + group, part + group);
        std::copy(result, result + group * size, part + 2 * group);
        return;
    }
    for (int64_t g = 0; g < group; g++) {
        const float scale = 1.0f / total[g];
        for (int64_t i = 0; i < size; i += VL) store(out + g * size + i, load(result + g * size + i) * scale);
    }
}

}  // namespace

void attend_decode(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
                   float* out, float* part, int64_t window, float* scratch) {
    auto run = pool.kind == F32 ? decode<float> : pool.kind == F16 ? decode<Fp16> : decode<Bf16>;
    run(item, sequences, pool, kv_head, q, out, part, window, scratch);
}

}  // namespace rm
