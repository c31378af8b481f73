// Average over tiles of patches.
#include "rows.cuh"

constexpr uint32_t MAX_THREADS = 256;
constexpr uint32_t WARPS = MAX_THREADS / 32;

// What the sums become: scale r(sum), then (x - bias) factor if there is a bias.
struct Finish {
    float scale;
    const float *bias, *factor;
};

// One soft token: the sum of its patches times `share`, in the order of the patches. A block reads all slots,
// a warp's width of them at a time, and agrees in `found` on which are its own; a thread has a span of the
// columns.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void average_pool(
    const T *x, const uint32_t *slots, uint32_t patches, float share, const Finish &finish, float *out,
    uint32_t width) {
    __shared__ uint32_t found[WARPS];
    const uint32_t column = (blockIdx.y * blockDim.x + threadIdx.x) * SPAN;
    const uint32_t count = column < width ? min(SPAN, width - column) : 0;
    float sum[SPAN] = {};
    for (uint32_t first = 0; first < patches; first += blockDim.x) {
        const uint32_t patch = first + threadIdx.x;
        const uint32_t mine = __ballot_sync(0xffffffff, patch < patches && slots[patch] == blockIdx.x);
        if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = mine;
        __syncthreads();
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) {
            for (uint32_t left = found[warp]; left != 0; left &= left - 1) {
                float patch_row[SPAN];
                const uint32_t row = first + warp * 32 + __ffs(left) - 1;
                load<ALIGNED>(patch_row, x + size_t(row) * width + column, count);
#pragma unroll
                for (uint32_t i = 0; i < SPAN; i++) {
                    sum[i] = __fadd_rn(sum[i], __fmul_rn(patch_row[i], share));
                }
            }
        }
        __syncthreads();
    }
    float bias[SPAN], factor[SPAN];
    load<ALIGNED>(bias, finish.bias + column, finish.bias ? count : 0);
    load<ALIGNED>(factor, finish.factor + column, finish.bias ? count : 0);
#pragma unroll
    for (uint32_t i = 0; i < SPAN; i++) {
        sum[i] = __fmul_rn(rounded<T>(sum[i]), finish.scale);
        if (finish.bias) sum[i] = (sum[i] - bias[i]) * factor[i];
    }
    store<ALIGNED>(out + size_t(blockIdx.x) * width + column, sum, count);
}

#define KERNELS(T, SUFFIX)                                                                      \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) average_pool_##SUFFIX(            \
        const T *x, const uint32_t *slots, uint32_t patches, float share, float scale,          \
        const float *bias, const float *factor, float *out, uint32_t width, uint32_t aligned) { \
        const Finish finish = {scale, bias, factor};                                            \
        BY_ALIGNMENT(aligned, average_pool, x, slots, patches, share, finish, out, width)       \
    }

KERNELS(float, f32)
KERNELS(bf16, bf16)
