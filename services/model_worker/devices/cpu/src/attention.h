// Causal attention over the paged pool, for any mix of prompt chunks and decodes. Decodes whose tables begin with the
// same pages (the radix cache gave them one prefix) read these once together: cascade attention over the tree they form.
#pragma once

#include <algorithm>
#include <vector>

#include "threads.h"
#include "weight.h"
#include "workspace.h"

namespace rm {

// One layer's keys and values, [pages, kv_heads, page_size, head_dim] each.
struct Pool {
    void* keys;
    void* values;
    int32_t kind;  // F32, F16 or BF16
    int32_t heads, kv_heads, head_dim, page_size;

    int32_t group() const { return heads / kv_heads; }
    // Of token offset `at` in `page`, the first element.
    int64_t row(int64_t page, int64_t head, int64_t at) const {
        return ((page * kv_heads + head) * page_size + at) * head_dim;
    }
};

// Where the sequences of a step are. As `ForwardBatch`, whose arrays these are.
struct Sequences {
    int64_t count;
    const int64_t* query_start;  // [count + 1]
    const int64_t* context_len;  // [count]
    const int32_t* tables;       // [count, table_width]
    int64_t table_width;
    int64_t window;  // tokens before which pages may be others' by now, counted back from a query and with it; 0: none

    // The page of the first key that `sequence` still sees.
    int64_t first_page(int64_t sequence, int64_t page_size) const {
        if (!window) return 0;
        const int64_t length = query_start[sequence + 1] - query_start[sequence];
        return std::max<int64_t>(0, context_len[sequence] - length + 1 - window) / page_size;
    }
};

// What a thread does at once, for one kv head: some queries of a prompt's chunk; one decode's query, for all of its keys
// or a part of them; or the queries of several decodes, for keys that all of these have in common.
struct Item {
    enum Kind : int64_t { CHUNK, DECODE, SHARED };
    Kind kind;
    int64_t sequence, token, count, position;  // first token, how many, and the first one's position in the sequence
    int64_t key_begin, key_end;                // a decode's or the shared keys; with a window, their end
    int64_t part;                              // where a partial result goes (shared: the first of `count`), or -1
    int64_t first_member;                      // shared: `count` sequences, from here in the plan's `members`
};

// Partial results that together are one token's.
struct Merge {
    int64_t token, first, count;  // in the plan's `merged`
};

struct Stretch;

struct AttentionPlan {
    std::vector<Item> items;
    std::vector<int64_t> members;
    std::vector<Merge> merges;
    std::vector<int64_t> merged;
    int64_t parts = 0;  // partial results in all

    AttentionPlan(const Sequences& sequences, const Pool& pool, int threads);

  private:
    using PartsOf = std::vector<std::vector<int64_t>>;  // per sequence, the partial results that are its own
    void add_decodes(const std::vector<int64_t>& decodes, const Sequences& sequences, const Pool& pool, int threads);
    void add(const Stretch& stretch, int64_t pieces, const Sequences& sequences, const Pool& pool, PartsOf& parts_of);
};

// q [tokens, heads * head_dim], scaled already, with row stride `q_stride`; its keys and values are in the pool.
// -> out [tokens, heads * head_dim]. window: keys a query sees, its own included; 0: all. Ends with a barrier.
void attend(Team& team, Workspace& space, const AttentionPlan& plan, const Sequences& sequences, const Pool& pool,
            const float* q, int64_t q_stride, float* out, int64_t out_stride, int64_t window);

// The memory `attend` takes: per thread, and for parts of split decodes [floats].
int64_t attention_scratch(const Pool& pool);
inline int64_t part_size(const Pool& pool) { return int64_t(pool.group()) * (pool.head_dim + 2); }

// The three ways, per item and kv head. `part` [count][kv_heads][part_size]: where this kv head's first result goes.
void attend_decode(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
                   float* out, float* part, int64_t window, float* scratch);
void attend_chunk(const Item& item, const Sequences& sequences, const Pool& pool, int64_t kv_head, const float* q,
                  int64_t q_stride, float* out, int64_t out_stride, int64_t window, float* scratch);

void attend_shared(const Item& item, const AttentionPlan& plan, const Sequences& sequences, const Pool& pool,
                   int64_t kv_head, const float* q, int64_t q_stride, float* part, int64_t window, float* scratch);

constexpr int64_t KEYS = 64;         // per block, all ways
constexpr int64_t QUERY_ROWS = 256;  // of a chunk's item: tokens * heads per kv head, about

inline int64_t tokens_per_item(const Pool& pool) { return std::max<int64_t>(8, QUERY_ROWS / pool.group()); }
inline int64_t padded_head(const Pool& pool) { return (pool.head_dim + NR - 1) / NR * NR; }

// Pointers to consecutive tokens' rows of `data`, the pool's keys or values.
template <class T>
inline void key_rows(const Sequences& sequences, const Pool& pool, int64_t sequence, int64_t kv_head, int64_t first,
                     int64_t count, const void* data, const T** rows) {
    const int32_t* table = sequences.tables + sequence * sequences.table_width;
    int64_t page = first / pool.page_size, at = first % pool.page_size;
    for (int64_t i = 0; i < count; page++, at = 0) {
        const T* row = static_cast<const T*>(data) + pool.row(table[page], kv_head, at);
        for (; at < pool.page_size && i < count; at++, i++, row += pool.head_dim) rows[i] = row;
    }
}

}  // namespace rm
