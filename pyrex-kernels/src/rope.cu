// Rotary embedding: tables of angles, and heads that are normed, rotated and put into their place in one
// pass.
#include "rows.cuh"

constexpr uint32_t MAX_THREADS = 128;

struct Angle {
    float cos, sin;
};

// Cosine and sine of an angle below 2^32, as near as f32 comes to them. Quarter turns are taken off in f64,
// with pi/2 in two parts; what is left is at most an eighth of a turn, where Taylor's series to the 11th
// power are within 2^-32.
__device__ __forceinline__ Angle cos_sin(float angle) {
    const double turns = rint(double(angle) * 0.63661977236758134);
    const double x = fma(-turns, 6.123233995736766e-17, fma(-turns, 1.5707963267948966, double(angle)));
    const double x2 = x * x;
    double s = -1.0 / 39916800, c = -1.0 / 3628800;
    s = fma(s, x2, 1.0 / 362880);
    s = fma(s, x2, -1.0 / 5040);
    s = fma(s, x2, 1.0 / 120);
    s = fma(s, x2, -1.0 / 6);
    s = fma(s * x2, x, x);
    c = fma(c, x2, 1.0 / 40320);
    c = fma(c, x2, -1.0 / 720);
    c = fma(c, x2, 1.0 / 24);
    c = fma(c, x2, -1.0 / 2);
    c = fma(c, x2, 1.0);
    switch (int64_t(turns) & 3) {
    case 0: return {float(c), float(s)};
    case 1: return {float(-s), float(c)};
    case 2: return {float(-c), float(-s)};
    default: return {float(s), float(-c)};
    }
}

template <typename T>
__device__ __forceinline__ void rope_table(
    const uint32_t *positions, const float *inv_freq, T *cos, T *sin, uint32_t pairs, uint32_t len) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    const Angle angle = cos_sin(__fmul_rn(float(positions[i / pairs]), inv_freq[i % pairs]));
    cos[i] = from_f32<T>(angle.cos);
    sin[i] = from_f32<T>(angle.sin);
}

// Heads of `head_dim`, each cut into `axes` segments, in which number j turns with the one half a segment on.
struct Heads {
    uint32_t count, per_token, head_dim, axes;
};

// What this thread has of its head: spans of the first halves of segments, then those of the second halves
// that they turn with. The angles of span k begin at `angles[k]`. Behind the last head it has nothing.
__device__ __forceinline__ void head_spans(
    Span (&spans)[2 * SPANS], uint32_t (&angles)[SPANS], const Heads &heads) {
    const uint32_t part = heads.head_dim / 2 / heads.axes;
    const uint32_t spans_of_part = (part + SPAN - 1) / SPAN;
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
        const uint32_t i = k * blockDim.x + threadIdx.x;
        const uint32_t segment = i / spans_of_part, at = i % spans_of_part * SPAN;
        const bool exists = own_row() < heads.count && segment < heads.axes;
        const uint32_t count = exists ? min(SPAN, part - at) : 0;
        spans[k] = {2 * segment * part + at, count};
        spans[k + SPANS] = {spans[k].at + part, count};
        angles[k] = segment * part + at;
    }
}

// What is done to a head: a norm without a weight is one of ones, a rotation without a table is none.
template <typename T> struct Step {
    bool normed;
    const float *weight;
    float eps;
    const T *cos, *sin;
};

template <typename T>
__device__ __forceinline__ void rotate(
    float (&a)[SPAN], float (&b)[SPAN], const float (&cos)[SPAN], const float (&sin)[SPAN]) {
#pragma unroll
    for (uint32_t i = 0; i < SPAN; i++) {
        const float first = sum_of<T>(product_of<T>(a[i], cos[i]), -product_of<T>(b[i], sin[i]));
        b[i] = sum_of<T>(product_of<T>(b[i], cos[i]), product_of<T>(a[i], sin[i]));
        a[i] = first;
    }
}

// The head of this thread, normed and rounded, then rotated with three roundings. `x` and `out` are where it
// is and goes to; without `out` nothing is written.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void norm_rope(const T *x, const Step<T> &step, T *out, const Heads &heads) {
    Span spans[2 * SPANS];
    uint32_t angles[SPANS];
    head_spans(spans, angles, heads);
    const size_t table = size_t(own_row() / heads.per_token) * (heads.head_dim / 2);
    float head[2 * SPANS][SPAN], weight[2 * SPANS][SPAN], cos[SPANS][SPAN], sin[SPANS][SPAN];
    load_spans<ALIGNED>(head, x, spans);
    load_weight<ALIGNED>(weight, step.weight, spans);
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
        const uint32_t count = step.cos ? spans[k].count : 0;
        load<ALIGNED>(cos[k], step.cos + table + angles[k], count);
        load<ALIGNED>(sin[k], step.sin + table + angles[k], count);
    }
    if (step.normed) normalize<T>(head, weight, step.eps, heads.head_dim, nullptr);
    if (step.cos) {
#pragma unroll
        for (uint32_t k = 0; k < SPANS; k++) rotate<T>(head[k], head[k + SPANS], cos[k], sin[k]);
    }
    if (out) store_spans<ALIGNED>(out, head, spans);
}

// Along y of the grid: keys, then values, which are not rotated. A slot outside of the pool is nobody's.
template <typename T> struct KeyValue {
    const T *k, *v;
    const float *k_weight, *v_weight;
    float k_eps, v_eps;
    const T *cos, *sin;
    const uint32_t *slots;
    T *keys, *values;
    uint32_t num_slots;
};

template <bool ALIGNED, typename T>
__device__ __forceinline__ void norm_rope_write(const KeyValue<T> &kv, const Heads &heads) {
    const bool is_key = blockIdx.y == 0;
    const uint32_t token = own_row() / heads.per_token, head = own_row() % heads.per_token;
    const uint32_t slot = own_row() < heads.count ? kv.slots[token] : kv.num_slots;
    const Step<T> step = {
        true,
        is_key ? kv.k_weight : kv.v_weight,
        is_key ? kv.k_eps : kv.v_eps,
        is_key ? kv.cos : nullptr,
        is_key ? kv.sin : nullptr,
    };
    const T *x = (is_key ? kv.k : kv.v) + size_t(own_row()) * heads.head_dim;
    T *pool = is_key ? kv.keys : kv.values;
    T *out = slot < kv.num_slots ? pool + (size_t(slot) * heads.per_token + head) * heads.head_dim : nullptr;
    norm_rope<ALIGNED>(x, step, out, heads);
}

#define KERNELS(T, SUFFIX)                                                                                \
    extern "C" __global__ void rope_table_##SUFFIX(                                                       \
        const uint32_t *positions, const float *inv_freq, T *cos, T *sin, uint32_t pairs, uint32_t len) { \
        rope_table(positions, inv_freq, cos, sin, pairs, len);                                            \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) norm_rope_##SUFFIX(                         \
        const T *x, uint32_t normed, const float *weight, float eps, const T *cos, const T *sin,          \
        T *out, uint32_t count, uint32_t per_token, uint32_t head_dim, uint32_t axes,                     \
        uint32_t aligned) {                                                                               \
        const Heads heads = {count, per_token, head_dim, axes};                                           \
        const Step<T> step = {normed != 0, weight, eps, cos, sin};                                        \
        const size_t at = size_t(own_row()) * head_dim;                                                   \
        BY_ALIGNMENT(aligned, norm_rope, x + at, step, out + at, heads)                                   \
    }                                                                                                     \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) norm_rope_write_##SUFFIX(                   \
        const T *k, const T *v, const float *k_weight, const float *v_weight, float k_eps,                \
        float v_eps, const T *cos, const T *sin, const uint32_t *slots, T *keys, T *values,               \
        uint32_t num_slots, uint32_t count, uint32_t per_token, uint32_t head_dim, uint32_t axes,         \
        uint32_t aligned) {                                                                               \
        const Heads heads = {count, per_token, head_dim, axes};                                           \
        const KeyValue<T> kv = {                                                                          \
            k, v, k_weight, v_weight, k_eps, v_eps, cos, sin, slots, keys, values, num_slots};            \
        BY_ALIGNMENT(aligned, norm_rope_write, kv, heads)                                                 \
    }

KERNELS(float, f32)
KERNELS(bf16, bf16)
