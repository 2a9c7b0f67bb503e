// Queries of several decodes over keys that they share: read, and widened, once for all of them.
#include "attention_tiles.h"

namespace rm {
namespace {

template <class T>
void shared(const Item& item, const AttentionPlan& plan, const Sequences& sequences, const Pool& pool, int64_t kv_head,
            const float* q, int64_t q_stride, float* part, int64_t window, float* scratch) {
    const int64_t size = pool.head_dim, group = pool.group();
    const int64_t* members = plan.members.data() + item.first_member;
    Room room(pool, item.count, scratch);
    // The first key that any of them sees.
    int64_t begin = window ? item.key_end : item.key_begin;
    for (int64_t m = 0; m < item.count; m++) {
        std::copy_n(q + sequences.query_start[members[m]] * q_stride, group * size,
                    room.queries + m * group * size);
        if (window) begin = std::min(begin, std::max(item.key_begin, sequences.context_len[members[m]] - window));
    }
    const T *keys[KEYS], *values[KEYS];
    for (int64_t base = begin; base < item.key_end; base += KEYS) {
        const int64_t count = std::min(KEYS, item.key_end - base), panels = (count + NR - 1) / NR;
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.keys, keys);
        key_rows<T>(sequences, pool, item.sequence, kv_head, base, count, pool.values, values);
        pack_block(keys, values, count, size, room.key_panels, room.value_panels);
        room.score(0, room.rows, panels);
        for (int64_t row = 0; row < room.rows; row++) {
            const int64_t context = sequences.context_len[members[row / group]];
            const int64_t first = window ? std::max<int64_t>(0, context - window - base) : 0;
            soften(room.scores + row * KEYS, panels * NR, first, count, room.running(row));
        }
        room.weigh(0, room.rows, count);
    }
    for (int64_t m = 0; m < item.count; m++, part += pool.kv_heads * part_size(pool)) {
        std::copy_n(room.largest + m * group, group, part);
        std::copy_n(room.total + m * group, group, part + group);
        for (int64_t g = 0; g < group; g++)
            std::copy_n(room.result + (m * group + g) * room.wide, size, part + 2 * group + g * size);
    }
}

}  // namespace

void attend_shared(const Item& item, const AttentionPlan& plan, const Sequences& sequences, const Pool& pool,
                   int64_t kv_head, const float* q, int64_t q_stride, float* part, int64_t window, float* scratch) {
    auto run = pool.kind == F32 ? shared<float> : pool.kind == F16 ? shared<Fp16> : shared<Bf16>;
    run(item, plan, sequences, pool, kv_head, q, q_stride, part, window, scratch);
}

}  // namespace rm
