#include "decoder.h"

#include <algorithm>

#include "attention.h"
#include "linear.h"
#include "rotary.h"

namespace rm {
namespace {

// One step, as one thread sees it.
struct Step {
    const Model& model;
    const Batch& batch;
    const std::vector<AttentionPlan>& plans;  // by group
    const std::vector<Sequences>& sequences;
    Workspace& space;
    Team& team;
    float* out;

    const int64_t hidden = model.hidden;
    const int64_t width = int64_t(model.heads) * model.head_dim;
    const int64_t qkv_width = width + 2 * int64_t(model.kv_heads) * model.head_dim;
    int64_t rows = batch.tokens;

    void run() {
        embed();
        for (int32_t i = 0; i < model.num_layers; i++)
            if (!layer(model.layers[i], i + 1 == model.num_layers)) return;
        finish();
    }

    void embed() {
        int64_t begin, end;
        while (team.take(rows, 8, begin, end))
            for (int64_t t = begin; t < end; t++) {
                float* to = space.hidden + t * hidden;
                const int64_t id = batch.token_ids[t];
                if (model.tied)
                    unpack_row(*model.tied, id, to);
                else
                    widen_row(model.embedding, model.embedding_kind, id * hidden, hidden, to);
            }
        team.barrier();
    }

    // False if nothing more is wanted of this step.
    bool layer(const Layer& layer, bool last) {
        const Pool pool{layer.keys,     layer.values,   model.cache_kind, model.heads,
                        model.kv_heads, model.head_dim, model.page_size};
        Act act = normed(layer.input_norm, layer.qkv);
        linear_store(team, layer.qkv, act, rows, space.qkv, qkv_width, qkv_width, false);
        team.barrier();
        rotate(layer, pool);
        if (last && batch.num_rows == 0) return false;  // the cache is filled
        attend(team, space, plans[layer.group], sequences[layer.group], pool, space.qkv, qkv_width, space.attended,
               width, layer.window);
        if (last && batch.num_rows < rows) pick();
        act = prepare(team, space, {space.attended, width}, rows, layer.o);
        linear_store(team, layer.o, act, rows, space.hidden, hidden, hidden, true);
        team.barrier();
        act = normed(layer.post_norm, layer.gate_up);
        linear_silu(team, layer.gate_up, act, rows, space.inner, model.inner, model.inner);
        team.barrier();
        act = prepare(team, space, {space.inner, model.inner}, rows, layer.down);
        linear_store(team, layer.down, act, rows, space.hidden, hidden, hidden, true);
        team.barrier();
        return true;
    }

    Act normed(const float* norm, const Weight& w) {
        return prepare(team, space, {space.hidden, hidden, norm, model.eps}, rows, w);
    }

    // Head norms, rotation, and k and v to the pool.
    void rotate(const Layer& layer, const Pool& pool) {
        const int64_t heads = model.heads + 2 * int64_t(model.kv_heads), size = model.head_dim;
        const Rotation rotation{model, layer, pool};
        const int64_t* locations = batch.pages[layer.group].kv_locations;
        int64_t begin, end;
        while (team.take(rows * heads, 8, begin, end))
            for (int64_t i = begin; i < end; i++) {
                const int64_t t = i / heads, head = i % heads;
                const int64_t angle = (batch.rope_rows ? batch.positions[t] : t) * (size / 2);
                rotation.head(space.qkv + t * qkv_width + head * size, head, batch.cos + angle, batch.sin + angle,
                              locations[t]);
            }
        team.barrier();
    }

    // Above the last layer's attention, only the wanted rows matter. They move to the front; in two
    // steps, as rows may come in any order.
    void pick() {
        int64_t begin, end;
        while (team.take(batch.num_rows, 1, begin, end))
            for (int64_t r = begin; r < end; r++) {
                std::copy_n(space.hidden + batch.rows[r] * hidden, hidden, space.picked + r * hidden);
                std::copy_n(space.attended + batch.rows[r] * width, width, space.qkv + r * width);
            }
        team.barrier();
        while (team.take(batch.num_rows, 1, begin, end))
            for (int64_t r = begin; r < end; r++) {
                std::copy_n(space.picked + r * hidden, hidden, space.hidden + r * hidden);
                std::copy_n(space.qkv + r * width, width, space.attended + r * width);
            }
        team.barrier();
        rows = batch.num_rows;
        picked = true;
    }

    void finish() {
        int64_t begin, end;
        while (team.take(batch.num_rows, 4, begin, end))
            for (int64_t r = begin; r < end; r++)
                rms_norm(space.hidden + (picked ? r : batch.rows[r]) * hidden, model.norm, hidden, model.eps,
                         out + r * hidden);
    }

    bool picked = false;
};

// Room for the inputs of every linear layer.
void reserve(Workspace& space, const Model& model, const Batch& batch, const std::vector<AttentionPlan>& plans,
             const Pool& pool) {
    const int threads = num_threads();
    const int64_t tokens = std::max(batch.tokens, batch.num_rows), width = int64_t(model.heads) * model.head_dim;
    space.set_threads(threads);
    space.hidden.grow(tokens * model.hidden);
    space.picked.grow(batch.num_rows * model.hidden);
    space.qkv.grow(tokens * (width + 2 * int64_t(model.kv_heads) * model.head_dim));
    space.attended.grow(tokens * width);
    space.inner.grow(tokens * model.inner);
    for (const AttentionPlan& plan : plans) space.parts.grow(plan.parts * model.kv_heads * part_size(pool));
    for (int id = 0; id < threads; id++) space.thread(id).attention.grow(attention_scratch(pool));
    for (const Weight* w : {&model.layers[0].qkv, &model.layers[0].o, &model.layers[0].gate_up, &model.layers[0].down})
        for (int64_t rows : {tokens, batch.num_rows})  // fewer rows may be prepared by each thread for itself
            space.reserve(threads, rows, *w);
}

Problem check(const Model& model, const Batch& batch) {
    for (int64_t t = 0; t < batch.tokens; t++) {
        if (batch.token_ids[t] < 0 || batch.token_ids[t] >= model.vocab) return BAD_TOKEN;
        if (batch.positions[t] < 0 || (batch.rope_rows && batch.positions[t] >= batch.rope_rows)) return BAD_POSITION;
    }
    for (int64_t r = 0; r < batch.num_rows; r++)
        if (batch.rows[r] < 0 || batch.rows[r] >= batch.tokens) return BAD_ROW;
    return OK;
}

}  // namespace

Sequences sequences_of(const Batch& batch, const Pages& pages, int64_t window) {
    return {batch.sequences, batch.query_start, batch.context_len, pages.tables, pages.table_width, window};
}

Problem check_pages(const Batch& batch, const Pages& pages, const Sequences& sequences, int64_t num_pages,
                    int64_t page_size) {
    for (int64_t t = 0; t < batch.tokens; t++)
        if (pages.kv_locations[t] < 0 || pages.kv_locations[t] >= num_pages * page_size) return BAD_PAGE;
    for (int64_t s = 0; s < batch.sequences; s++) {
        const int64_t count = (batch.context_len[s] + page_size - 1) / page_size;
        if (count > pages.table_width) return BAD_PAGE;
        const int32_t* table = pages.tables + s * pages.table_width;
        for (int64_t i = sequences.first_page(s, page_size); i < count; i++)
            if (table[i] < 0 || table[i] >= num_pages) return BAD_PAGE;
    }
    return OK;
}

Problem forward(const Model& model, const Batch& batch, float* out) {
    if (Problem problem = check(model, batch)) return problem;
    std::vector<Sequences> sequences;
    for (int64_t g = 0; g < model.num_groups; g++) {
        sequences.push_back(sequences_of(batch, batch.pages[g], model.groups[g].window));
        Problem problem = check_pages(batch, batch.pages[g], sequences[g], model.groups[g].num_pages, model.page_size);
        if (problem) return problem;
    }
    const Pool pool{nullptr, nullptr, model.cache_kind, model.heads, model.kv_heads, model.head_dim, model.page_size};
    const Turn turn;
    std::vector<AttentionPlan> plans;
    for (const Sequences& of_group : sequences) plans.emplace_back(of_group, pool, num_threads());
    Workspace& space = workspace();
    reserve(space, model, batch, plans, pool);
    parallel(turn, [&](Team& team) { Step{model, batch, plans, sequences, space, team, out}.run(); });
    return OK;
}

}  // namespace rm
