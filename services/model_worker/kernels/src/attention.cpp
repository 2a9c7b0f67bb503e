// The plan, and who does what.
#include "attention.h"

#include <algorithm>
#include <cmath>

namespace rm {
namespace {

constexpr int64_t MIN_SPLIT = 256;  // keys; below this, merging costs more than a second thread brings

// Decodes can be split over their keys when there are fewer of them than threads to keep busy.
int64_t keys_per_part(const Sequences& sequences, const Pool& pool, int threads) {
    int64_t work = 0, longest = 0;
    for (int64_t s = 0; s < sequences.count; s++) {
        const int64_t keys = sequences.context_len[s] * (sequences.query_start[s + 1] - sequences.query_start[s]);
        work += keys * pool.kv_heads;
        longest = std::max(longest, sequences.context_len[s]);
    }
    const int64_t fair = work / (4 * threads);
    return threads == 1 || longest <= fair ? longest : std::max(MIN_SPLIT, fair);
}

void merge(const Item& item, const Pool& pool, int64_t kv_head, const float* parts, float* out,
           int64_t out_stride) {
    const int64_t group = pool.group(), size = pool.head_dim, step = pool.kv_heads * part_size(pool);
    const float* first = parts + item.part * step + kv_head * part_size(pool);
    for (int64_t g = 0; g < group; g++) {
        float largest = -INFINITY, total = 0.0f;
        for (int64_t p = 0; p < item.parts; p++) largest = std::max(largest, first[p * step + g]);
        float* to = out + item.token * out_stride + (kv_head * group + g) * size;
        std::fill(to, to + size, 0.0f);
        for (int64_t p = 0; p < item.parts; p++) {
            const float* part = first + p * step;
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

AttentionPlan::AttentionPlan(const Sequences& sequences, const Pool& pool, int threads) {
    const int64_t tokens = tokens_per_item(pool), split = keys_per_part(sequences, pool, threads);
    for (int64_t s = 0; s < sequences.count; s++) {
        const int64_t start = sequences.query_start[s], length = sequences.query_start[s + 1] - start;
        const int64_t context = sequences.context_len[s], prefix = context - length;
        if (length == 1 && pool.head_dim % VL == 0) {
            const int64_t count = std::max<int64_t>(1, (context + split - 1) / split);
            for (int64_t p = 0; p < count; p++)
                items.push_back({s, start, 1, prefix, context * p / count, context * (p + 1) / count,
                                 count == 1 ? -1 : parts + p, p == 0 ? count : 0});
            if (count > 1) parts += count;
            continue;
        }
        for (int64_t at = 0; at < length; at += tokens)
            items.push_back({s, start + at, std::min(tokens, length - at), prefix + at, 0, context, -1, 0});
    }
    // Long ones first, so that none is begun last.
    std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        auto cost = [](const Item& i) {
            return i.count > 1 ? (i.position + i.count) * i.count : i.key_end - i.key_begin;
        };
        return cost(a) > cost(b);
    });
}

int64_t attention_scratch(const Pool& pool) {
    const int64_t rows = tokens_per_item(pool) * pool.group(), size = padded_head(pool);
    return KEYS * size * 2 + rows * (KEYS + size + 2) + 8 * NR;
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
            const float* q_head = q + item.token * q_stride + head * head_width;
            float* out_head = out + item.token * out_stride + head * head_width;
            if (item.count > 1 || pool.head_dim % VL) {
                attend_chunk(item, sequences, pool, head, q_head, q_stride, out_head, out_stride, window, scratch);
            } else {
                const int64_t at = (item.part * pool.kv_heads + head) * part_size(pool);
                float* part = item.part < 0 ? nullptr : space.parts + at;
                attend_decode(item, sequences, pool, head, q_head, out_head, part, window, scratch);
            }
        }
    }
    team.barrier();
    if (plan.parts == 0) return;
    while (team.take_some(total, 1, begin, end))
        for (int64_t i = begin; i < end; i++) {
            const Item& item = plan.items[i / pool.kv_heads];
            if (item.parts > 1) merge(item, pool, i % pool.kv_heads, space.parts, out, out_stride);
        }
    team.barrier();
}

}  // namespace rm
