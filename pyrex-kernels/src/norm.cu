// Root mean square norms of rows, alone and with the residual stream they add to.
#include "rows.cuh"

constexpr uint32_t MAX_THREADS = 1024;

// Threads behind the last row have nothing of any, but take part in sums.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void rms_norm(
    const T *x, const float *weight, float eps, T *out, uint32_t rows, uint32_t width) {
    __shared__ float partial[32];
    const size_t at = size_t(own_row()) * width;
    Span spans[SPANS];
    row_spans(spans, own_row() < rows ? width : 0);
    float row[SPANS][SPAN], scale[SPANS][SPAN];
    load_spans<ALIGNED>(row, x + at, spans);
    load_weight<ALIGNED>(scale, weight, spans);
    normalize<T>(row, scale, eps, width, partial);
    store_spans<ALIGNED>(out + at, row, spans);
}

template <typename T> struct AddNorm {
    const T *x, *residual;
    const float *weight;
    float eps, scale;
    T *sum;
    const float *next_weight;
    float next_eps;
    T *next;
};

// sum = r(r(residual + r(norm(x))) scale), and next = r(norm(sum)) if there is one. All that is read is asked
// for before anything is waited for: a single row takes as long as memory takes to answer.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void add_norm(const AddNorm<T> &step, uint32_t rows, uint32_t width) {
    __shared__ float partial[2][32];
    const size_t at = size_t(own_row()) * width;
    Span spans[SPANS];
    row_spans(spans, own_row() < rows ? width : 0);
    float row[SPANS][SPAN], residual[SPANS][SPAN], weight[SPANS][SPAN], next_weight[SPANS][SPAN];
    load_spans<ALIGNED>(row, step.x + at, spans);
    load_spans<ALIGNED>(residual, step.residual + at, spans);
    load_weight<ALIGNED>(weight, step.weight, spans);
    load_weight<ALIGNED>(next_weight, step.next_weight, spans);
    normalize<T>(row, weight, step.eps, width, partial[0]);
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) {
            row[k][i] = product_of<T>(sum_of<T>(residual[k][i], row[k][i]), step.scale);
        }
    }
    store_spans<ALIGNED>(step.sum + at, row, spans);
    if (!step.next) return;
    normalize<T>(row, next_weight, step.next_eps, width, partial[1]);
    store_spans<ALIGNED>(step.next + at, row, spans);
}

#define KERNELS(T, SUFFIX)                                                                  \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) rms_norm_##SUFFIX(            \
        const T *x, const float *weight, float eps, T *out, uint32_t rows, uint32_t width,  \
        uint32_t aligned) {                                                                 \
        BY_ALIGNMENT(aligned, rms_norm, x, weight, eps, out, rows, width)                   \
    }                                                                                       \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) add_norm_##SUFFIX(            \
        const T *x, const T *residual, const float *weight, float eps, float scale, T *sum, \
        const float *next_weight, float next_eps, T *next, uint32_t rows, uint32_t width,   \
        uint32_t aligned) {                                                                 \
        const AddNorm<T> step = {                                                           \
            x, residual, weight, eps, scale, sum, next_weight, next_eps, next};             \
        BY_ALIGNMENT(aligned, add_norm, step, rows, width)                                  \
    }

KERNELS(float, f32)
KERNELS(bf16, bf16)
