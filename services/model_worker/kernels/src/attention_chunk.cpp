// Many queries of one sequence: compute-bound. Blocks of keys and values become panels of floats, and the same tiles as
// for linear layers multiply them; softmax is online, block by block (FlashAttention-2, arXiv:2307.08691).
#include "attention_tiles.h"

namespace rm {
namespace {

template <class T>
void chunk(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
           int64_t q_stride, float* out, int64_t out_stride, int64_t window, float* scratch) {
    const int64_t size = pool.head_dim, wide = padded_head(pool), group = pool.group(), rows = item.count * group;
    float* key_panels = scratch;
    float* value_panels = key_panels + KEYS * wide;
    float* scores = value_panels + KEYS * wide;
    float* result = scores + rows * KEYS;
    float* largest = result + rows * wide;
    float* total = largest + rows;
    float* queries = total + rows;  // side by side: in `q` they lie pages apart, where the cache mistakes one for another
    std::fill(result, result + rows * wide, 0.0f);
    std::fill(largest, largest + rows, -INFINITY);
    std::fill(total, total + rows, 0.0f);
    for (int64_t row = 0; row < rows; row++)  // ordered by head, then token
        std::copy_n(q + row % item.count * q_stride + row / item.count * size, size, queries + row * size);
    const T *keys[KEYS], *values[KEYS];
    const int64_t begin = window ? std::max<int64_t>(0, item.position + 1 - window) : 0;
    const int64_t end = item.position + item.count;
    for (int64_t base = begin; base < end; base += KEYS) {
        const int64_t count = std::min(KEYS, end - base), panels = (count + NR - 1) / NR;
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.keys, keys);
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.values, values);
        pack_block(keys, values, count, size, key_panels, value_panels);
        const int64_t unseeing = std::max<int64_t>(0, base - item.position);  // tokens that come before all these keys
        for (int64_t g = 0; g < group; g++) {
            const int64_t head = g * item.count + unseeing;
            tiles(item.count - unseeing, [&](int64_t i, int n) {
                for (int64_t p = 0; p < panels; p++)
                    tile_floats(queries + (head + i) * size, size, key_panels + p * size * NR, size, n,
                                scores + (head + i) * KEYS + p * NR, KEYS, false);
            });
            for (int64_t i = unseeing; i < item.count; i++) {
                const int64_t row = g * item.count + i, position = item.position + i;
                const int64_t first = window ? std::max<int64_t>(0, position + 1 - window - base) : 0;
                const int64_t high = std::min(count, position + 1 - base);
                soften(scores + row * KEYS, panels * NR, first, high,
                       {largest[row], total[row], result + row * wide, wide});
            }
            tiles(item.count - unseeing, [&](int64_t i, int n) {
                for (int64_t p = 0; p * NR < size; p++)
                    tile_floats(scores + (head + i) * KEYS, KEYS, value_panels + p * count * NR, count, n,
                                result + (head + i) * wide + p * NR, wide, true);
            });
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        const float scale = 1.0f / total[row];
        float* to = out + row % item.count * out_stride + row / item.count * size;
        for (int64_t d = 0; d < size; d++) to[d] = result[row * wide + d] * scale;
    }
}

}  // namespace

void attend_chunk(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
                  int64_t q_stride, float* out, int64_t out_stride, int64_t window, float* scratch) {
    auto run = pool.kind == F32 ? chunk<float> : pool.kind == F16 ? chunk<Fp16> : chunk<Bf16>;
    run(item, sequences, pool, kv_head, q, q_stride, out, out_stride, window, scratch);
}

}  // namespace rm
