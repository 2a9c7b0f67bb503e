#include "quantize.h"

#include <algorithm>
#include <cmath>

namespace rm {

void quantize_row(const Weight& w, const float* x, int16_t* q, float* scale, int32_t* sum) {
    const int32_t limit = w.kind == I12 ? LIMIT_INPUT12 : 32767;
    float padded[MAX_GROUP];
    for (int64_t start = 0, g = 0; start < w.k; start += w.group, g++) {
        const float* from = x + start;
        if (w.k - start < w.group) {
            std::fill(std::copy(from, x + w.k, padded), padded + w.group, 0.0f);
            from = padded;
        }
        const uint32_t bits = largest_bits(from, w.group);
        const bool finite = bits < 0x7f800000;
        float largest;
        memcpy(&largest, &bits, 4);
        const float inverse = finite && largest > 1e-30f ? float(limit) / largest : 0.0f;
        if (finite)
            sum[g] = -offset(w) * round_group(from, w.group, inverse, limit, q + start);
        else
            sum[g] = 0, std::fill(q + start, q + start + w.group, int16_t(0));
        scale[g] = finite ? largest / float(limit) : NAN;  // 0 * NaN: the whole row becomes NaN
    }
}

}  // namespace rm
