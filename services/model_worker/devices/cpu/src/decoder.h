// A dense pre-norm decoder (Llama, Mistral, Qwen2, Qwen3) in one call per step.
//
// The structs are shared with Python (ctypes), field by field: see `native.py`.
#pragma once

#include "weight.h"

namespace rm {

struct Layer {
    Weight qkv, o, gate_up, down;
    const float *input_norm, *post_norm;
    const float *q_norm, *k_norm;  // [head_dim], or null
    void *keys, *values;           // this layer's pool
    int64_t window;                // 0: none
    int64_t group;
};

// Layers whose keys and values lie in the same pages of one pool.
struct Group {
    int64_t num_pages;
    int64_t window;  // tokens that a query of any of them sees; 0: all
};

struct Model {
    const Layer* layers;
    const Weight* tied;     // the packed head where it is the embedding too, or null
    const void* embedding;  // [vocab, hidden] otherwise
    const float* norm;
    Weight head;
    const Group* groups;
    int64_t num_groups;
    int32_t embedding_kind, cache_kind;
    int32_t num_layers, hidden, heads, kv_heads, head_dim, inner, vocab, page_size;
    float eps, scale;
};

// Where a group's keys and values lie.
struct Pages {
    const int64_t* kv_locations;  // [tokens]
    const int32_t* tables;        // [sequences, table_width]
    int64_t table_width;
};

// `ForwardBatch`, whose arrays these are; cos and sin have rows of head_dim / 2.
struct Batch {
    const int64_t *token_ids, *positions;  // [tokens]
    const int64_t* query_start;            // [sequences + 1]
    const int64_t* context_len;            // [sequences]
    const Pages* pages;                    // by group
    const int64_t* rows;                   // [num_rows]: tokens whose states are wanted
    const float *cos, *sin;
    int64_t rope_rows;     // of cos and sin; 0: row t is token t's, else row p is position p's
    int64_t tokens, sequences, num_rows;
};

enum Problem : int32_t { OK = 0, OUT_OF_MEMORY = 1, BAD_TOKEN = 2, BAD_POSITION = 3, BAD_PAGE = 4, BAD_ROW = 5 };

struct Sequences;
Sequences sequences_of(const Batch& batch, const Pages& pages, int64_t window);

// Whether every page that the batch names for a group, and reads, exists.
Problem check_pages(const Batch& batch, const Pages& pages, const Sequences& sequences, int64_t num_pages,
                    int64_t page_size);

// Writes the pool, and the normed states of the wanted rows to out [num_rows, hidden].
Problem forward(const Model& model, const Batch& batch, float* out);

}  // namespace rm
