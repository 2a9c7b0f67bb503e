// What attention of many queries is made of: panels of keys and values, and tiles of rows.
#pragma once

#include "softmax.h"

namespace rm {

// keys [count] of head_dim -> panels [count / NR][head_dim][NR]; values -> panels [head_dim / NR][count][NR].
// What pads the last panels is zero.
template <class T>
inline void pack_block(const T* const* keys, const T* const* values, int64_t count, int64_t size, float* key_panels,
                float* value_panels) {
    const int64_t padded = (count + NR - 1) / NR * NR;
    for (int64_t i = 0; i < padded; i++) {
        float* to = key_panels + i / NR * size * NR + i % NR;
        for (int64_t d = 0; d < size; d++) to[d * NR] = i < count ? widen(keys[i][d]) : 0.0f;
    }
    for (int64_t panel = 0; panel * NR < size; panel++) {
        const int64_t width = std::min<int64_t>(NR, size - panel * NR);
        for (int64_t i = 0; i < count; i++) {
            float* to = value_panels + (panel * count + i) * NR;
            const T* from = values[i] + panel * NR;
            if (width == NR) {
                store(to, load(from));
                store(to + VL, load(from + VL));
                continue;
            }
            for (int64_t d = 0; d < NR; d++) to[d] = d < width ? widen(from[d]) : 0.0f;
        }
    }
}

// Rows [begin, end) in tiles of at most MR.
template <class F>
void tiles(int64_t rows, F&& f) {
    const int64_t count = (rows + MR - 1) / MR;
    for (int64_t t = 0; t < count; t++) f(rows * t / count, int(rows * (t + 1) / count - rows * t / count));
}

// One item's share of a thread's memory: `rows` queries side by side, what they have summed up, and a block's panels.
struct Room {
    const int64_t rows, size, wide;
    float *key_panels, *value_panels, *scores, *result, *largest, *total, *queries;

    Room(const Pool& pool, int64_t count, float* scratch)
        : rows(count * pool.group()), size(pool.head_dim), wide(padded_head(pool)), key_panels(scratch),
          value_panels(key_panels + KEYS * wide), scores(value_panels + KEYS * wide), result(scores + rows * KEYS),
          largest(result + rows * wide), total(largest + rows), queries(total + rows) {
        std::fill(result, result + rows * wide, 0.0f);
        std::fill(largest, largest + rows, -INFINITY);
        std::fill(total, total + rows, 0.0f);
    }

    Running running(int64_t row) { return {largest[row], total[row], result + row * wide, wide}; }

    // Scores of rows [first, first + count) for a block's keys, of which there are `panels` panels.
    void score(int64_t first, int64_t count, int64_t panels) {
        tiles(count, [&](int64_t i, int n) {
            for (int64_t p = 0; p < panels; p++)
                tile_floats(queries + (first + i) * size, size, key_panels + p * size * NR, size, n,
                            scores + (first + i) * KEYS + p * NR, KEYS, false);
        });
    }

    // Adds the block's `keys` values to these rows, weighted by what scores have become.
    void weigh(int64_t first, int64_t count, int64_t keys) {
        tiles(count, [&](int64_t i, int n) {
            for (int64_t p = 0; p * NR < size; p++)
                tile_floats(scores + (first + i) * KEYS, KEYS, value_panels + p * keys * NR, keys, n,
                            result + (first + i) * wide + p * NR, wide, true);
        });
    }
};

}  // namespace rm
