// y = x W^T over many rows: how tiles cover the matrix, and what becomes of a tile's results.
#pragma once

#include "threads.h"
#include "weight.h"
#include "workspace.h"

namespace rm {

constexpr int64_t SLAB = 512;           // rows whose activations stay in the outer cache

// Where a layer's input comes from: rows, normalised first if `norm` is given.
struct Input {
    const float* x;
    int64_t stride;
    const float* norm = nullptr;
    float eps = 0.0f;
};

inline void rms_norm(const float* x, const float* weight, int64_t size, float eps, float* out) {
    vf squares = {};
    int64_t i = 0;
    for (; i + VL <= size; i += VL) {
        vf v = load(x + i);
        squares += v * v;
    }
    float total = sum(squares);
    for (; i < size; i++) total += x[i] * x[i];
    const float scale = 1.0f / __builtin_sqrtf(total / float(size) + eps);
    for (i = 0; i + VL <= size; i += VL) store(out + i, load(x + i) * scale * load(weight + i));
    for (; i < size; i++) out[i] = x[i] * scale * weight[i];
}

// Normalises and rounds as `w` wants it. All threads of the team call it; ends with a barrier unless the rows are few.
Act prepare(Team& team, Workspace& space, const Input& input, int64_t rows, const Weight& w);

// `finish(row, rows, unit, tile)` gets each result: `tile` [unit_panels][MR][NR] of `rows` rows from `row`.
template <class Finish>
void linear(Team& team, const Weight& w, const Act& act, int64_t rows, int unit_panels, Finish&& finish) {
    if (rows <= 0) return;
    const int64_t units = w.panels / unit_panels, bytes = panel_bytes(w), unit_bytes = bytes * unit_panels;
    const int64_t slabs = (rows + SLAB - 1) / SLAB;
    // Of weights of 12 bits, the first of several tiles leaves its panel unpacked to the others.
    const Weight wide = w.kind == I12 ? unpacked(w, workspace().thread(team.id).panels) : w;
    const int64_t wide_bytes = panel_bytes(wide);
    // Few rows: one unit at a time, the next one prefetched. Many: as many as stay in the cache.
    const int64_t together = rows <= 8 * MR ? 1 : std::max<int64_t>(1, PANELS_IN_L2 / (wide_bytes * unit_panels));
    const int64_t grain = std::max<int64_t>(together, std::min<int64_t>(units / 16, (64 << 10) / unit_bytes));
    alignas(64) float out[2 * MR * NR];
    int64_t begin, end;
    while (team.take(units * slabs, grain, begin, end)) {
        for (int64_t at = begin; at < end;) {
            const int64_t slab = at / units, first = at % units;
            const int64_t last = std::min({first + together, units, first + end - at});
            const int64_t row0 = slab * SLAB, count = std::min(SLAB, rows - row0);
            const int64_t tiles = (count + MR - 1) / MR;
            const bool leave = w.kind == I12 && tiles > 1;
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t from = count * t / tiles, to = count * (t + 1) / tiles;
                const Act part = act.from(row0 + from);
                for (int64_t unit = first; unit < last; unit++) {
                    const uint8_t* next = w.data + (unit + 1) * unit_bytes + unit_bytes * t / tiles;
                    for (int p = 0; p < unit_panels; p++) {
                        const int64_t panel = unit * unit_panels + p, place = panel - first * unit_panels;
                        const bool left = leave && t > 0;
                        tile(left ? wide : w, left ? place : panel, part, int(to - from), out + p * MR * NR,
                             next + bytes / tiles * p, bytes / tiles,
                             leave && !left ? wide.data + place * wide_bytes : nullptr);
                    }
                    finish(row0 + from, int(to - from), unit, out);
                }
            }
            at += last - first;
        }
    }
}

// y [rows, n] = (add ? y : 0) + x W^T + bias.
void linear_store(Team& team, const Weight& w, const Act& act, int64_t rows, float* y, int64_t stride, int64_t n,
                  bool add);

// y [rows, n] = silu(gate) * up; the panels of W alternate between gate and up.
void linear_silu(Team& team, const Weight& w, const Act& act, int64_t rows, float* y, int64_t stride, int64_t n);

}  // namespace rm
