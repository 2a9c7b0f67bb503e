#include "attention_once.h"

#include "attention.h"
#include "rotary.h"

namespace rm {

Problem attend_once(const PagedLayer& layer, const Batch& batch, const Heads& q, const Heads& k, const Heads& v,
                    float scale, int64_t window, float* out) {
    const Pages& pages = *batch.pages;
    const Sequences sequences = sequences_of(batch, pages, window);
    if (Problem problem = check_pages(batch, pages, sequences, layer.num_pages, layer.page_size)) return problem;
    const Pool pool{layer.keys, layer.values, layer.kind, layer.heads, layer.kv_heads, layer.head_dim, layer.page_size};
    const int64_t size = pool.head_dim, width = pool.heads * size;
    const Turn turn;
    const AttentionPlan plan(sequences, pool, num_threads());
    Workspace& space = workspace();
    space.set_threads(num_threads());
    space.qkv.grow(batch.tokens * width);
    space.parts.grow(plan.parts * pool.kv_heads * part_size(pool));
    for (int id = 0; id < num_threads(); id++) {
        space.thread(id).attention.grow(attention_scratch(pool));
        space.thread(id).line.grow(std::max<int64_t>(width, size));
    }
    parallel(turn, [&](Team& team) {
        float* line = space.thread(team.id).line;
        int64_t begin, end;
        while (team.take(batch.tokens, 4, begin, end))
            for (int64_t t = begin; t < end; t++) {
                float* scaled = space.qkv + t * width;
                widen_row(q.data, int32_t(q.kind), t * q.stride, width, scaled);
                for (int64_t i = 0; i < width; i++) scaled[i] *= scale;
                const int64_t location = pages.kv_locations[t];
                for (int64_t head = 0; head < pool.kv_heads; head++) {
                    const int64_t to = pool.row(location / pool.page_size, head, location % pool.page_size);
                    widen_row(k.data, int32_t(k.kind), t * k.stride + head * size, size, line);
                    write_cache(pool.keys, pool.kind, to, line, size);
                    widen_row(v.data, int32_t(v.kind), t * v.stride + head * size, size, line);
                    write_cache(pool.values, pool.kind, to, line, size);
                }
            }
        team.barrier();
        attend(team, space, plan, sequences, pool, space.qkv, width, out, width, window);
    });
    return OK;
}

}  // namespace rm
