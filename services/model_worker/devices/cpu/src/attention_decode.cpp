// One query per head: memory-bound. All query heads of a kv head go together, so keys and values are read once.
#include "softmax.h"

namespace rm {
namespace {

// A block's keys or values; `next` are fetched while these are computed with: the hardware guesses right only within
// a page of the pool, and that is short.
template <class T>
struct Rows {
    const T* at[KEYS + 4];
    int64_t count = 0;

    void fetch(int64_t i, int64_t element) const { prefetch(at[i] + element); }
};

// scores[g, i] = q[g] . keys[i] for the keys (up to a multiple of 4: the last repeats), G query heads.
template <int G, class T>
void score(const float* q, int64_t size, const Rows<T>& keys, const Rows<T>& next, float* scores) {
    constexpr int TOGETHER = G == 4 ? 2 : 4;
    for (int64_t i = 0; i < keys.count; i += TOGETHER) {
        vf sums[G][TOGETHER] = {};
        for (int j = 0; j < TOGETHER && i + j < next.count; j++)
            for (int64_t d = 0; d < size; d += 64 / sizeof(T)) next.fetch(i + j, d);
        for (int64_t d = 0; d < size; d += VL) {
            vf key[TOGETHER];
            for (int j = 0; j < TOGETHER; j++) key[j] = load(keys.at[i + j] + d);
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
                *reinterpret_cast<v4_mem*>(scores + g * KEYS + i) =
                    sum4(sums[g][0], sums[g][1], sums[g][2], sums[g][3]);
        }
    }
}

// out[g] += sum over i of weights[g, i] values[i], in W vectors from element `at`.
template <int G, int W, class T>
void weigh_part(const Rows<T>& values, const Rows<T>& next, const float* weights, float* out, int64_t size,
                int64_t at) {
    vf sums[G][W];
    for (int g = 0; g < G; g++)
        for (int w = 0; w < W; w++) sums[g][w] = load(out + g * size + at + w * VL);
    for (int64_t i = 0; i < values.count; i++) {
        if (i < next.count) next.fetch(i, at);
        vf value[W];
        for (int w = 0; w < W; w++) value[w] = load(values.at[i] + at + w * VL);
        for (int g = 0; g < G; g++) {
            vf weight = splat(weights[g * KEYS + i]);
            for (int w = 0; w < W; w++) sums[g][w] += weight * value[w];
        }
    }
    for (int g = 0; g < G; g++)
        for (int w = 0; w < W; w++) store(out + g * size + at + w * VL, sums[g][w]);
}

template <int G, class T>
void weigh(const Rows<T>& values, const Rows<T>& next, const float* weights, float* out, int64_t size) {
    constexpr int W = 8 / G;
    int64_t at = 0;
    for (; at + W * VL <= size; at += W * VL) weigh_part<G, W>(values, next, weights, out, size, at);
    for (; at < size; at += VL) weigh_part<G, 1>(values, next, weights, out, size, at);
}

template <class T>
struct Decode {
    const Item& item;
    const Sequences& sequences;
    const Pool& pool;
    int64_t kv_head;
    const float* q;
    float *scores, *out, *largest, *total;

    Rows<T> keys[2] = {}, values = {};

    template <int G>
    void heads(int64_t first, const Rows<T>& now, const Rows<T>& next) {
        const int64_t size = pool.head_dim, count = values.count;
        score<G>(q + first * size, size, now, values, scores);
        float* to = out + first * size;
        for (int g = 0; g < G; g++)
            soften(scores + g * KEYS, (count + VL - 1) / VL * VL, 0, count,
                   {largest[first + g], total[first + g], to + g * size, size});
        weigh<G>(values, next, scores, to, size);
    }

    void find(int64_t head, int64_t at, int64_t end, const void* data, Rows<T>& rows) const {
        rows.count = std::max<int64_t>(0, std::min(KEYS, end - at));
        key_rows<T>(sequences, pool, item.sequence, head, at, rows.count, data, rows.at);
        for (int64_t i = rows.count; i % 4; i++) rows.at[i] = rows.at[rows.count - 1];
    }

    void run(int64_t begin, int64_t end) {
        const int64_t group = pool.group();
        find(kv_head, begin, end, pool.keys, keys[0]);
        int current = 0;
        for (int64_t at = begin; at < end; at += KEYS, current = 1 - current) {
            find(kv_head, at, end, pool.values, values);
            // After the last block comes, most likely, the next head's first.
            const bool more = at + KEYS < end;
            const int64_t head = more ? kv_head : std::min<int64_t>(kv_head + 1, pool.kv_heads - 1);
            find(head, more ? at + KEYS : begin, end, pool.keys, keys[1 - current]);
            const Rows<T>&now = keys[current], &next = keys[1 - current];
            int64_t g = 0;
            for (; g + 4 <= group; g += 4) heads<4>(g, now, next);
            if (g + 2 <= group) {
                heads<2>(g, now, next);
                g += 2;
            }
            if (g < group) heads<1>(g, now, next);
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
