// gelu_tanh(gate) * up, rounded after each of the two.
#include "rows.cuh"

// Rows of `width` in `gate` and `out`, `up_stride` apart in `up`; a thread has what 16 bytes hold, of `packs`
// in a row.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void gelu_mul(
    const T *gate, const T *up, T *out, uint32_t rows, uint32_t width, uint32_t up_stride) {
    constexpr uint32_t N = 16 / sizeof(T);
    const uint32_t packs = (width + N - 1) / N;
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t row = i / packs, at = i % packs * N;
    if (row >= rows) return;
    const uint32_t count = min(N, width - at);
    float x[N], factor[N];
    load_some<ALIGNED>(x, gate + size_t(row) * width + at, count);
    load_some<ALIGNED>(factor, up + size_t(row) * up_stride + at, count);
#pragma unroll
    for (uint32_t k = 0; k < N; k++) x[k] = rounded<T>(gelu_tanh(x[k])) * factor[k];
    store_some<ALIGNED>(out + size_t(row) * width + at, x, count);
}

#define KERNELS(T, SUFFIX)                                                                     \
    extern "C" __global__ void gelu_mul_##SUFFIX(                                              \
        const T *gate, const T *up, T *out, uint32_t rows, uint32_t width, uint32_t up_stride, \
        uint32_t aligned) {                                                                    \
        BY_ALIGNMENT(aligned, gelu_mul, gate, up, out, rows, width, up_stride)                 \
    }

KERNELS(float, f32)
KERNELS(bf16, bf16)
