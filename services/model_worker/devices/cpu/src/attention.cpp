// Who does what of a plan.
#include "attention.h"

#include <algorithm>
#include <cmath>

namespace rm {
namespace {

void merge(const Merge& merge, const AttentionPlan& plan, const Pool& pool, int64_t kv_head, const float* parts,
           float* out, int64_t out_stride) {
    const int64_t group = pool.group(), size = pool.head_dim;
    auto part_of = [&](int64_t p) {
        return parts + (plan.merged[merge.first + p] * pool.kv_heads + kv_head) * part_size(pool);
    };
    for (int64_t g = 0; g < group; g++) {
        float largest = -INFINITY, total = 0.0f;
        for (int64_t p = 0; p < merge.count; p++) largest = std::max(largest, part_of(p)[g]);
        float* to = out + merge.token * out_stride + (kv_head * group + g) * size;
        std::fill(to, to + size, 0.0f);
        for (int64_t p = 0; p < merge.count; p++) {
            const float* part = part_of(p);
            if (part[group + g] == 0.0f) continue;  // no key of this part was in the window
            const float factor = __builtin_expf(part[g] - largest);
            total += factor * part[group + g];
            const float* from = part + 2 * group + g * size;
            for (int64_t i = 0; i < size; i++) to[i] += factor * from[i];
        }
        for (int64_t i = 0; i < size; i++) to[i] /= total;
    }
}

}  // namespace

int64_t attention_scratch(const Pool& pool) {
    const int64_t rows = tokens_per_item(pool) * pool.group(), size = padded_head(pool);
    return KEYS * size * 2 + rows * (KEYS + size + 2 + pool.head_dim) + 8 * NR;
}

void attend(Team& team, Workspace& space, const AttentionPlan& plan, const Sequences& sequences, const Pool& pool,
            const float* q, int64_t q_stride, float* out, int64_t out_stride, int64_t window) {
    float* scratch = space.thread(team.id).attention;
    const int64_t total = int64_t(plan.items.size()) * pool.kv_heads;
    const int64_t head_width = int64_t(pool.group()) * pool.head_dim;
    int64_t begin, end;
    // Heads of a sequence lie side by side in the pool; one thread takes several where there is enough for all.
    const int64_t together = std::clamp<int64_t>(total / (16 * team.size), 1, pool.kv_heads);
    while (team.take_some(total, together, begin, end)) {
        for (int64_t i = begin; i < end; i++) {
            const Item& item = plan.items[i / pool.kv_heads];
            const int64_t head = i % pool.kv_heads;
            float* part = item.part < 0 ? nullptr : space.parts + (item.part * pool.kv_heads + head) * part_size(pool);
            if (item.kind == Item::SHARED) {
                attend_shared(item, plan, sequences, pool, head, q + head * head_width, q_stride, part, window, scratch);
                continue;
            }
            const float* q_head = q + item.token * q_stride + head * head_width;
            float* out_head = out + item.token * out_stride + head * head_width;
            if (item.kind == Item::CHUNK)
                attend_chunk(item, sequences, pool, head, q_head, q_stride, out_head, out_stride, window, scratch);
            else
                attend_decode(item, sequences, pool, head, q_head, out_head, part, window, scratch);
        }
    }
    team.barrier();
    if (plan.merges.empty()) return;
    const int64_t results = int64_t(plan.merges.size()) * pool.kv_heads;
    while (team.take(results, 4, begin, end))
        for (int64_t i = begin; i < end; i++)
            merge(plan.merges[i / pool.kv_heads], plan, pool, i % pool.kv_heads, space.parts, out, out_stride);
    team.barrier();
}

}  // namespace rm
