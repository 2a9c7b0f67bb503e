// Many queries of one sequence: compute-bound. Blocks of keys and values become panels of floats, and the same tiles as
// for linear layers multiply them; softmax is online, block by block (FlashAttention-2, arXiv:2307.08691).
#include "attention_tiles.h"

namespace rm {
namespace {

template <class T>
void chunk(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
           int64_t q_stride, float* out, int64_t out_stride, int64_t window, float* scratch) {
    const int64_t size = pool.head_dim, group = pool.group();
    Room room(pool, item.count, scratch);  // in `q` the queries lie pages apart, where the cache mistakes one for another
    for (int64_t row = 0; row < room.rows; row++)  // ordered by head, then token
        std::copy_n(q + row % item.count * q_stride + row / item.count * size, size, room.queries + row * size);
    const T *keys[KEYS], *values[KEYS];
    const int64_t begin = window ? std::max<int64_t>(0, item.position + 1 - window) : 0;
    const int64_t end = item.position + item.count;
    for (int64_t base = begin; base < end; base += KEYS) {
        const int64_t count = std::min(KEYS, end - base), panels = (count + NR - 1) / NR;
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.keys, keys);
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.values, values);
        pack_block(keys, values, count, size, room.key_panels, room.value_panels);
        const int64_t unseeing = std::max<int64_t>(0, base - item.position);  // tokens that come before all these keys
        for (int64_t g = 0; g < group; g++) {
            const int64_t head = g * item.count;
            room.score(head + unseeing, item.count - unseeing, panels);
            for (int64_t i = unseeing; i < item.count; i++) {
                const int64_t position = item.position + i;
                const int64_t first = window ? std::max<int64_t>(0, position + 1 - window - base) : 0;
                const int64_t high = std::min(count, position + 1 - base);
                soften(room.scores + (head + i) * KEYS, panels * NR, first, high, room.running(head + i));
            }
            room.weigh(head + unseeing, item.count - unseeing, count);
        }
    }
    for (int64_t row = 0; row < room.rows; row++) {
        const float scale = 1.0f / room.total[row];
        float* to = out + row % item.count * out_stride + row / item.count * size;
        for (int64_t d = 0; d < size; d++) to[d] = room.result[row * room.wide + d] * scale;
    }
}

}  // namespace

void attend_chunk(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
                  int64_t q_stride, float* out, int64_t out_stride, int64_t window, float* scratch) {
    auto run = pool.kind == F32 ? chunk<float> : pool.kind == F16 ? chunk<Fp16> : chunk<Bf16>;
    run(item, sequences, pool, kv_head, q, q_stride, out, out_stride, window, scratch);
}

}  // namespace rm
