// Rows of numbers in registers, a few neighbouring ones a thread. Which thread has which depends on the row's
// width alone, so a row that lies where it cannot be read several numbers at a time gives the same bits.
#pragma once
#include "common.cuh"

// N neighbouring numbers, read or written by one instruction where that is at most 16 bytes.
template <typename T, uint32_t N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
    T at[N];
};

__device__ __forceinline__ float to_f32(uint8_t x) { return float(x); }

// The row of this thread: rows lie along y of a block, one after another.
__device__ __forceinline__ uint32_t own_row() { return blockIdx.x * blockDim.y + threadIdx.y; }

// Calls the template for rows that can be read in packs, or the one for those that cannot.
#define BY_ALIGNMENT(aligned, function, ...) \
    if (aligned) {                           \
        function<true>(__VA_ARGS__);         \
    } else {                                 \
        function<false>(__VA_ARGS__);        \
    }

// The `count` numbers at `from`, and 0 for the rest. If ALIGNED, a pack may lie there, and `count` is N or 0.
template <bool ALIGNED, typename T, uint32_t N>
__device__ __forceinline__ void load(float (&to)[N], const T *from, uint32_t count) {
    if constexpr (ALIGNED) {
        Pack<T, N> pack = {};
        if (count > 0) pack = *reinterpret_cast<const Pack<T, N> *>(from);
#pragma unroll
        for (uint32_t i = 0; i < N; i++) to[i] = to_f32(pack.at[i]);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < N; i++) to[i] = i < count ? to_f32(from[i]) : 0.0f;
    }
}

// Writes the first `count` of `from`, rounded; where to, as in `load`.
template <bool ALIGNED, typename T, uint32_t N>
__device__ __forceinline__ void store(T *to, const float (&from)[N], uint32_t count) {
    Pack<T, N> pack;
#pragma unroll
    for (uint32_t i = 0; i < N; i++) pack.at[i] = from_f32<T>(from[i]);
    if constexpr (ALIGNED) {
        if (count > 0) *reinterpret_cast<Pack<T, N> *>(to) = pack;
    } else {
#pragma unroll
        for (uint32_t i = 0; i < N; i++) {
            if (i < count) to[i] = pack.at[i];
        }
    }
}

// `load` and `store` of numbers that may end in the middle of a pack.
template <bool ALIGNED, typename T, uint32_t N>
__device__ __forceinline__ void load_some(float (&to)[N], const T *from, uint32_t count) {
    if (ALIGNED && count == N) {
        load<true>(to, from, N);
    } else {
        load<false>(to, from, count);
    }
}

template <bool ALIGNED, typename T, uint32_t N>
__device__ __forceinline__ void store_some(T *to, const float (&from)[N], uint32_t count) {
    if (ALIGNED && count == N) {
        store<true>(to, from, N);
    } else {
        store<false>(to, from, count);
    }
}

// A sum and a product as they are once they were stored: the compiler may not fuse them with what follows.
template <typename T> __device__ __forceinline__ float sum_of(float a, float b) {
    return rounded<T>(__fadd_rn(a, b));
}
template <typename T> __device__ __forceinline__ float product_of(float a, float b) {
    return rounded<T>(__fmul_rn(a, b));
}

// A thread has SPAN neighbours of a row at a time, and SPANS times: 16 bytes of f32, as norm weights are, so
// that both they and activations of 16 bits are read without gaps between the threads of a warp.
constexpr uint32_t SPAN = 4;
constexpr uint32_t SPANS = 2;

// Neighbours of a row: where the first is, and how many there are.
struct Span {
    uint32_t at, count;
};

// Those that this thread has of a row of `width`, each up to N.
template <uint32_t N = SPAN> __device__ __forceinline__ void row_spans(Span (&spans)[SPANS], uint32_t width) {
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
        const uint32_t at = (k * blockDim.x + threadIdx.x) * N;
        spans[k] = {at, at < width ? min(N, width - at) : 0};
    }
}

template <bool ALIGNED, typename T, uint32_t K, uint32_t N>
__device__ __forceinline__ void load_spans(float (&to)[K][N], const T *from, const Span (&spans)[K]) {
#pragma unroll
    for (uint32_t k = 0; k < K; k++) load<ALIGNED>(to[k], from + spans[k].at, spans[k].count);
}

template <bool ALIGNED, typename T, uint32_t K, uint32_t N>
__device__ __forceinline__ void store_spans(T *to, const float (&from)[K][N], const Span (&spans)[K]) {
#pragma unroll
    for (uint32_t k = 0; k < K; k++) store<ALIGNED>(to + spans[k].at, from[k], spans[k].count);
}

// The weights of a norm; without any they are 1.
template <bool ALIGNED, uint32_t K>
__device__ __forceinline__ void load_weight(
    float (&to)[K][SPAN], const float *weight, const Span (&spans)[K]) {
    if (weight) {
        load_spans<ALIGNED>(to, weight, spans);
        return;
    }
#pragma unroll
    for (uint32_t k = 0; k < K; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) to[k][i] = 1.0f;
    }
}

// The sum over `threads` neighbouring ones of a warp, the same bits in each.
__device__ __forceinline__ float warp_sum(float value, uint32_t threads) {
#pragma unroll
    for (uint32_t distance = 16; distance > 0; distance /= 2) {
        if (distance < threads) value += __shfl_xor_sync(0xffffffff, value, distance);
    }
    return value;
}

// The sum over the threads of a row, the same bits in each. A row has a power of two of threads inside a
// warp, or a block of whole warps; for those `partial` is 32 numbers of shared memory that nothing else uses.
__device__ __forceinline__ float row_sum(float value, float *partial) {
    value = warp_sum(value, min(blockDim.x, 32u));
    if (!partial || blockDim.x <= 32) return value;
    const uint32_t lane = threadIdx.x % 32;
    if (lane == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? partial[lane] : 0.0f, 32);
}

// x (mean(x^2) + eps)^-1/2 weight in place, rounded to T; numbers behind the row's end are 0.
template <typename T, uint32_t K>
__device__ __forceinline__ void normalize(
    float (&x)[K][SPAN], const float (&weight)[K][SPAN], float eps, uint32_t width, float *partial) {
    float squares = 0.0f;
#pragma unroll
    for (uint32_t k = 0; k < K; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) squares = fmaf(x[k][i], x[k][i], squares);
    }
    const float factor = 1.0f / sqrtf(row_sum(squares, partial) / float(width) + eps);
#pragma unroll
    for (uint32_t k = 0; k < K; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) x[k][i] = product_of<T>(x[k][i] * factor, weight[k][i]);
    }
}
