// What Python calls. Nothing throws across; a problem is a number, see `Problem`.
#include <algorithm>
#include <new>

#include "attention_once.h"
#include "decoder.h"
#include "linear.h"

#define RM_API extern "C" __attribute__((visibility("default")))

namespace rm {

Workspace& workspace() {
    static Workspace* space = new Workspace;  // outlives the threads
    return *space;
}

namespace {

template <class F>
int32_t guarded(F&& f) {
    try {
        return f();
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
}

int32_t multiply(const Weight& w, const float* x, int64_t rows, float* y, int64_t n) {
    const Turn turn;
    Workspace& space = workspace();
    space.set_threads(num_threads());
    space.reserve(num_threads(), rows, w);
    parallel(turn, [&](Team& team) {
        Act act = prepare(team, space, {x, w.k}, rows, w);
        linear_store(team, w, act, rows, y, n, n, false);
    });
    return OK;
}

}  // namespace
}  // namespace rm

using namespace rm;

// Whether products of int16 are faster than those of floats here, and nothing is faster still.
RM_API int32_t rm_prefers_int16() {
#if defined(__AMX_BF16__) || !(defined(RM_AVX2) || (defined(RM_AVX512) && defined(__AVX512VNNI__)))
    return 0;
#else
    return 1;
#endif
}
RM_API int32_t rm_panel_width() { return NR; }
RM_API int64_t rm_packed_bytes(const Weight* w) { return panel_bytes(*w) * w->panels; }
RM_API int32_t rm_threads() { return num_threads(); }
RM_API void rm_set_threads(int32_t count) { set_num_threads(count); }

// Asks for huge pages where `data` lies; of no use once it has been written.
RM_API void rm_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__)
    const uintptr_t page = 1 << 21, from = uintptr_t(data);
    const uintptr_t begin = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

RM_API int32_t rm_pack(const Weight* w, const void* source, int32_t kind, int64_t n, int64_t first, int64_t step) {
    return guarded([&] {
        pack(*w, source, kind, n, first, step);
        return OK;
    });
}

RM_API void rm_unpack(const Weight* w, int64_t first, int64_t rows, float* out) {
    for (int64_t i = 0; i < rows; i++) unpack_row(*w, first + i, out + i * w->k);
}

// y [rows, n] = x [rows, k] W^T + b
RM_API int32_t rm_linear(const Weight* w, const float* x, int64_t rows, float* y, int64_t n) {
    return guarded([&] { return multiply(*w, x, rows, y, n); });
}

RM_API int32_t rm_forward(const Model* model, const Batch* batch, float* out) {
    return guarded([&] { return forward(*model, *batch, out); });
}

// Attention of one layer outside a fused decoder: see `attend_once`.
RM_API int32_t rm_attention(const PagedLayer* layer, const Batch* batch, const Heads* q, const Heads* k, const Heads* v,
                            float scale, int64_t window, float* out) {
    return guarded([&] { return attend_once(*layer, *batch, *q, *k, *v, scale, window, out); });
}
