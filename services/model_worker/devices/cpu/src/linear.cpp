#include "linear.h"

namespace rm {

Act prepare(Team& team, Workspace& space, const Input& input, int64_t rows, const Weight& w) {
    const bool ints = quantized(w);
    if (!input.norm && !ints) return {input.x, input.stride};
    const int64_t k = w.k, count = ints ? groups(w) : 0, padded = padded_k(w);
    const bool own = rows * k <= SMALL;
    Scratch& to = own ? space.thread(team.id) : space.shared();
    auto prepare_row = [&](int64_t row) {
        const float* x = input.x + row * input.stride;
        if (input.norm) {
            // Quantized weights read integers only: one line per thread is enough.
            float* out = ints ? space.thread(team.id).line : to.normed + row * k;
            rms_norm(x, input.norm, k, input.eps, out);
            x = out;
        }
        if (ints) quantize_row(w, x, to.q + row * padded, to.scales + row * count, to.sums + row * count);
    };
    if (own) {
        for (int64_t row = 0; row < rows; row++) prepare_row(row);
    } else {
        int64_t begin, end;
        while (team.take(rows, 4, begin, end))
            for (int64_t row = begin; row < end; row++) prepare_row(row);
        team.barrier();
    }
    return {to.normed, k, to.q, to.scales, to.sums, padded, count};
}

namespace {

inline vf bias_at(const Weight& w, int64_t panel, int half) {
    return w.bias ? load(w.bias + panel * NR + half * VL) : vf{};
}

}  // namespace

void linear_store(Team& team, const Weight& w, const Act& act, int64_t rows, float* y, int64_t stride, int64_t n,
                  bool add) {
    linear(team, w, act, rows, 1, [=, &w](int64_t row, int count, int64_t panel, const float* tile) {
        const vf bias[2] = {bias_at(w, panel, 0), bias_at(w, panel, 1)};
        const int64_t width = std::min<int64_t>(NR, n - panel * NR);
        for (int m = 0; m < count; m++) {
            float* out = y + (row + m) * stride + panel * NR;
            for (int half = 0; half < 2; half++) {
                vf value = load(tile + m * NR + half * VL) + bias[half];
                if (width == NR) {
                    store(out + half * VL, add ? value + load(out + half * VL) : value);
                    continue;
                }
                for (int i = 0; i < VL && half * VL + i < width; i++)
                    out[half * VL + i] = add ? out[half * VL + i] + value[i] : value[i];
            }
        }
    });
}

void linear_silu(Team& team, const Weight& w, const Act& act, int64_t rows, float* y, int64_t stride, int64_t n) {
    linear(team, w, act, rows, 2, [=, &w](int64_t row, int count, int64_t unit, const float* tile) {
        const int64_t width = std::min<int64_t>(NR, n - unit * NR);
        for (int m = 0; m < count; m++) {
            float* out = y + (row + m) * stride + unit * NR;
            for (int half = 0; half < 2; half++) {
                vf gate = load(tile + m * NR + half * VL) + bias_at(w, 2 * unit, half);
                vf up = load(tile + (MR + m) * NR + half * VL) + bias_at(w, 2 * unit + 1, half);
                vf value = silu(gate) * up;
                if (width == NR) {
                    store(out + half * VL, value);
                    continue;
                }
                for (int i = 0; i < VL && half * VL + i < width; i++) out[half * VL + i] = value[i];
            }
        }
    });
}

}  // namespace rm
