// From checkpoint matrices to panels, once at load; and single rows back, for embeddings tied to the head.
#include <cmath>
#include <vector>

#include "int12.h"
#include "quantize.h"
#include "threads.h"
#include "weight.h"
#include "workspace.h"

namespace rm {
namespace {

// One row of the source as floats, zero from k on.
void read_row(const void* source, int32_t kind, int64_t row, int64_t k, int64_t padded, float* out) {
    widen_row(source, kind, row * k, k, out);
    for (int64_t i = k; i < padded; i++) out[i] = 0.0f;
}

template <class T>
void put_plain(T* panel, int64_t column, const float* row, int64_t k) {
    for (int64_t i = 0; i < k; i++) narrow(row[i], &panel[i * NR + column]);
}

void put_bf16(bf16* panel, int64_t column, const float* row, int64_t padded) {
    for (int64_t i = 0; i < padded; i++) panel[(i / 2) * NR * 2 + column * 2 + (i & 1)] = to_bf16(row[i]);
}

struct Scale {
    float value;    // what is stored, a bfloat16
    float inverse;  // 0 for a group of zeros
};

Scale scale_for(float largest, float steps) {
    float value = from_bf16(to_bf16(largest / steps));
    return {value, std::fabs(value) > 1e-30f ? 1.0f / value : 0.0f};
}

float largest_of(const float* row, int64_t count) {
    const uint32_t bits = largest_bits(row, count);
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

int clamp_round(float x, int low, int high) {
    int value = int(std::nearbyint(x));
    return value < low ? low : value > high ? high : value;
}

// The pairs of NR rows of int16, dword by dword: row j's pair i goes to panel[i * NR + j].
void weave(const uint32_t* const* rows, int64_t pairs, uint32_t* panel) {
    for (int64_t i = 0; i < pairs; i++)
        for (int64_t j = 0; j < NR; j++) panel[i * NR + j] = rows[j][i];
}

// NR rows [NR][padded k] to a panel.
void put_int12(const Weight& w, uint8_t* panel, const float* rows) {
    alignas(4) int16_t values[NR][MAX_GROUP];
    uint32_t woven[MAX_GROUP / 2 * NR];
    const uint32_t* pairs[NR];
    for (int64_t g = 0; g < groups(w); g++, panel += group_bytes(w)) {
        for (int64_t j = 0; j < NR; j++) {
            const float* row = rows + j * padded_k(w) + g * w.group;
            // Rounding the scale down must not push the largest over the limit.
            Scale scale = scale_for(largest_of(row, w.group), LIMIT12 - 8.0f);
            reinterpret_cast<bf16*>(panel)[j] = to_bf16(scale.value);
            round_group(row, w.group, scale.inverse, LIMIT12, values[j]);
            pairs[j] = reinterpret_cast<const uint32_t*>(values[j]);
        }
        weave(pairs, w.group / 2, woven);
        uint8_t* to = panel + NR * 2;
        for (int64_t i = 0; i < w.group; i += 4, to += STEP12_BYTES) {
            const uint32_t* from = woven + i / 2 * NR;
            store12({load_bits(from), load_bits(from + VL), load_bits(from + 2 * VL), load_bits(from + 3 * VL)}, to);
        }
    }
}

void put_int8(const Weight& w, uint8_t* panel, int64_t column, const float* row) {
    for (int64_t g = 0; g < groups(w); g++, panel += group_bytes(w), row += w.group) {
        Scale scale = scale_for(largest_of(row, w.group), 127.0f);
        reinterpret_cast<bf16*>(panel)[column] = to_bf16(scale.value);
        int8_t* data = reinterpret_cast<int8_t*>(panel + NR * 2);
        for (int64_t i = 0; i < w.group; i++)
            data[(i / 2) * NR * 2 + column * 2 + (i & 1)] = int8_t(clamp_round(row[i] * scale.inverse, -127, 127));
    }
}

// The largest weight becomes -8, the end of the range with one step more.
void put_int4(const Weight& w, uint8_t* panel, int64_t column, const float* row) {
    for (int64_t g = 0; g < groups(w); g++, panel += group_bytes(w), row += w.group) {
        float largest = 0.0f;
        for (int64_t i = 0; i < w.group; i++)
            if (std::fabs(row[i]) > std::fabs(largest)) largest = row[i];
        Scale scale = scale_for(largest, -8.0f);
        reinterpret_cast<bf16*>(panel)[column] = to_bf16(scale.value);
        uint32_t* data = reinterpret_cast<uint32_t*>(panel + NR * 2);
        for (int64_t i = 0; i < w.group; i += 8) {
            uint32_t word = 0;
            for (int j = 0; j < 8; j++) {
                uint32_t value = uint32_t(clamp_round(row[i + j] * scale.inverse, -8, 7) + 8);
                word |= value << (4 * (j / 2) + 16 * (j & 1));
            }
            data[(i / 8) * NR + column] = word;
        }
    }
}

void put_row(const Weight& w, int64_t panel_index, int64_t column, const float* row) {
    uint8_t* panel = w.data + panel_index * panel_bytes(w);
    switch (w.kind) {
        case F32: return put_plain(reinterpret_cast<float*>(panel), column, row, w.k);
        case F16: return put_plain(reinterpret_cast<Fp16*>(panel), column, row, w.k);
        case BF16: return put_bf16(reinterpret_cast<bf16*>(panel), column, row, padded_k(w));
        case I8: return put_int8(w, panel, column, row);
        default: return put_int4(w, panel, column, row);
    }
}

// bf16 to bf16 is the common case and a matter of memory bandwidth: NR rows are woven dword by dword.
void weave_bf16(const Weight& w, int64_t panel_index, const bf16* source, int64_t row, int64_t rows) {
    uint32_t* panel = reinterpret_cast<uint32_t*>(w.data + panel_index * panel_bytes(w));
    for (int64_t pair = 0; pair < w.k / 2; pair++)
        for (int64_t j = 0; j < NR; j++) {
            uint32_t word = 0;
            if (j < rows) memcpy(&word, source + (row + j) * w.k + pair * 2, 4);
            panel[pair * NR + j] = word;
        }
}

// `line`: room for a panel of floats.
void pack_panel(const Weight& w, int64_t panel, const void* source, int32_t kind, int64_t row, int64_t rows,
                float* line) {
    if (w.kind == I12) {
        std::fill_n(line, NR * padded_k(w), 0.0f);
        for (int64_t j = 0; j < rows; j++) widen_row(source, kind, (row + j) * w.k, w.k, line + j * padded_k(w));
        return put_int12(w, w.data + panel * panel_bytes(w), line);
    }
    if (w.kind == BF16 && kind == BF16 && w.k % 2 == 0)
        return weave_bf16(w, panel, static_cast<const bf16*>(source), row, rows);
    for (int64_t j = 0; j < NR; j++) {
        if (j < rows)
            read_row(source, kind, row + j, w.k, padded_k(w), line);
        else
            std::fill_n(line, padded_k(w), 0.0f);
        put_row(w, panel, j, line);
    }
}

}  // namespace

void widen_row(const void* source, int32_t kind, int64_t at, int64_t count, float* out) {
    switch (kind) {
        case F32:
            std::copy_n(static_cast<const float*>(source) + at, count, out);
            return;
        case F16:
            for (int64_t i = 0; i < count; i++) out[i] = from_fp16(static_cast<const fp16*>(source)[at + i]);
            return;
        default:
            for (int64_t i = 0; i < count; i++) out[i] = from_bf16(static_cast<const bf16*>(source)[at + i]);
    }
}

void pack(const Weight& w, const void* source, int32_t kind, int64_t n, int64_t first, int64_t step) {
    const Turn turn;
    std::vector<Block<float>> lines(num_threads());
    for (Block<float>& line : lines) line.grow(NR * padded_k(w));
    parallel(turn, [&](Team& team) {
        int64_t begin, end;
        while (team.take((n + NR - 1) / NR, 1, begin, end))
            for (int64_t i = begin; i < end; i++)
                pack_panel(w, first + i * step, source, kind, i * NR, std::min<int64_t>(NR, n - i * NR),
                           lines[team.id]);
    });
}

void unpack_row(const Weight& w, int64_t row, float* out) {
    const uint8_t* panel = w.data + row / NR * panel_bytes(w);
    const int64_t column = row % NR;
    switch (w.kind) {
        case F32:
            for (int64_t i = 0; i < w.k; i++) out[i] = reinterpret_cast<const float*>(panel)[i * NR + column];
            return;
        case F16:
            for (int64_t i = 0; i < w.k; i++) out[i] = from_fp16(reinterpret_cast<const fp16*>(panel)[i * NR + column]);
            return;
        case BF16:
            for (int64_t i = 0; i < w.k; i++)
                out[i] = from_bf16(reinterpret_cast<const bf16*>(panel)[(i / 2) * NR * 2 + column * 2 + (i & 1)]);
            return;
        default: break;
    }
    for (int64_t i = 0; i < w.k; i++) {
        const uint8_t* group = panel + i / w.group * group_bytes(w);
        const int64_t at = i % w.group;
        float scale = from_bf16(reinterpret_cast<const bf16*>(group)[column]);
        const int64_t place = (at / 2) * NR * 2 + column * 2 + (at & 1);
        if (w.kind == I12) {
            out[i] = scale * number12(group + NR * 2, at, column);
        } else if (w.kind == I8) {
            out[i] = scale * reinterpret_cast<const int8_t*>(group + NR * 2)[place];
        } else {
            uint32_t word = reinterpret_cast<const uint32_t*>(group + NR * 2)[(at / 8) * NR + column];
            out[i] = scale * (int((word >> (4 * (at % 8 / 2) + 16 * (at & 1))) & 15) - 8);
        }
    }
}

}  // namespace rm
