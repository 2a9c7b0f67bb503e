// What happens to a head of q, k or v between its projection and attention.
#pragma once

#include "attention.h"
#include "decoder.h"
#include "linear.h"

namespace rm {

// (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), halves of a head; then times `scale`.
inline void rotate_head(float* x, const float* cos, const float* sin, int64_t size, float scale) {
    const int64_t half = size / 2;
    int64_t i = 0;
    for (; i + VL <= half; i += VL) {
        vf a = load(x + i), b = load(x + half + i), c = load(cos + i) * scale, s = load(sin + i) * scale;
        store(x + i, a * c - b * s);
        store(x + half + i, b * c + a * s);
    }
    for (; i < half; i++) {
        const float a = x[i], b = x[half + i];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[half + i] = (b * cos[i] + a * sin[i]) * scale;
    }
}

template <class T>
void narrow_row(const float* x, int64_t size, T* out) {
    for (int64_t i = 0; i < size; i++) narrow(x[i], out + i);
}

inline void write_cache(void* pool, int32_t kind, int64_t at, const float* x, int64_t size) {
    switch (kind) {
        case F32: return narrow_row(x, size, static_cast<float*>(pool) + at);
        case F16: return narrow_row(x, size, static_cast<Fp16*>(pool) + at);
        default: return narrow_row(x, size, static_cast<Bf16*>(pool) + at);
    }
}

struct Rotation {
    const Model& model;
    const Layer& layer;
    const Pool& pool;

    // x: head number `head` of one token, q heads first, then k, then v. q is scaled in place, k and v go to the pool.
    void head(float* x, int64_t head, const float* cos, const float* sin, int64_t location) const {
        const int64_t size = model.head_dim;
        const bool query = head < model.heads, value = head >= model.heads + model.kv_heads;
        if (!value) {
            const float* norm = query ? layer.q_norm : layer.k_norm;
            if (norm) rms_norm(x, norm, size, model.eps, x);
            rotate_head(x, cos, sin, size, query ? model.scale : 1.0f);
        }
        if (query) return;
        const int64_t kv_head = head - model.heads - (value ? model.kv_heads : 0);
        const int64_t at = pool.row(location / model.page_size, kv_head, location % model.page_size);
        write_cache(value ? pool.values : pool.keys, pool.kind, at, x, size);
    }
};

}  // namespace rm
