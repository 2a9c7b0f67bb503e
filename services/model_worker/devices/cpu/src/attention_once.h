// Attention as one call, for models that run layer by layer in torch.
#pragma once

#include "decoder.h"

namespace rm {

// [tokens, heads * head_dim] of kind F32, F16 or BF16; elements of a token are contiguous.
struct Heads {
    const void* data;
    int64_t stride;  // elements
    int64_t kind;
};

struct PagedLayer {
    void *keys, *values;
    int64_t num_pages;
    int32_t kind, heads, kv_heads, head_dim, page_size;
};

// Writes k and v to the pool, then attends: out [tokens, heads * head_dim]. Of `batch`, the arrays on pages and
// sequences are read.
Problem attend_once(const PagedLayer& layer, const Batch& batch, const Heads& q, const Heads& k, const Heads& v,
                    float scale, int64_t window, float* out);

}  // namespace rm
