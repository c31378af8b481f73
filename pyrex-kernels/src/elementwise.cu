// Functions of single numbers, in f32, rounded to the dtype of what is written.
#include "rows.cuh"

struct Convert {
    __device__ float operator()(float x) const { return x; }
};

struct Scale {
    float factor;
    __device__ float operator()(float x) const { return x * factor; }
};

// cap tanh(x / cap), rounded to T after each of the three.
template <typename T> struct SoftCap {
    float cap;
    __device__ float operator()(float x) const { return rounded<T>(tanhf(rounded<T>(x / cap))) * cap; }
};

// A NaN stays one.
struct Clamp {
    float low, high;
    __device__ float operator()(float x) const {
        x = x < low ? low : x;
        return x > high ? high : x;
    }
};

// A byte from 0 to 255 on the scale from -1 to 1.
struct Pixel {
    __device__ float operator()(float x) const { return (__fmul_rn(x, 1.0f / 255.0f) - 0.5f) * 2.0f; }
};

template <bool ALIGNED, typename T, typename U, typename Function>
__device__ __forceinline__ void map(const T *x, U *out, uint32_t len, Function function) {
    constexpr uint32_t N = 16 / (sizeof(T) > sizeof(U) ? sizeof(T) : sizeof(U));
    const size_t at = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at >= len) return;
    const uint32_t count = min(N, uint32_t(len - at));
    float values[N];
    load_some<ALIGNED>(values, x + at, count);
#pragma unroll
    for (uint32_t i = 0; i < N; i++) values[i] = function(values[i]);
    store_some<ALIGNED>(out + at, values, count);
}

template <bool ALIGNED, typename T>
__device__ __forceinline__ void add(const T *a, const T *b, T *out, uint32_t len) {
    constexpr uint32_t N = 16 / sizeof(T);
    const size_t at = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
    if (at >= len) return;
    const uint32_t count = min(N, uint32_t(len - at));
    float sum[N], other[N];
    load_some<ALIGNED>(sum, a + at, count);
    load_some<ALIGNED>(other, b + at, count);
#pragma unroll
    for (uint32_t i = 0; i < N; i++) sum[i] += other[i];
    store_some<ALIGNED>(out + at, sum, count);
}

#define KERNELS(T, SUFFIX)                                                           \
    extern "C" __global__ void scale_##SUFFIX(                                       \
        const T *x, T *out, uint32_t len, uint32_t aligned, float factor) {          \
        BY_ALIGNMENT(aligned, map, x, out, len, Scale{factor})                       \
    }                                                                                \
    extern "C" __global__ void soft_cap_##SUFFIX(                                    \
        const T *x, T *out, uint32_t len, uint32_t aligned, float cap) {             \
        BY_ALIGNMENT(aligned, map, x, out, len, SoftCap<T>{cap})                     \
    }                                                                                \
    extern "C" __global__ void clamp_##SUFFIX(                                       \
        const T *x, T *out, uint32_t len, uint32_t aligned, float low, float high) { \
        BY_ALIGNMENT(aligned, map, x, out, len, Clamp{low, high})                    \
    }                                                                                \
    extern "C" __global__ void add_##SUFFIX(                                         \
        const T *a, const T *b, T *out, uint32_t len, uint32_t aligned) {            \
        BY_ALIGNMENT(aligned, add, a, b, out, len)                                   \
    }

KERNELS(float, f32)
KERNELS(bf16, bf16)

#define CONVERSION(T, FROM, U, TO)                                                                         \
    extern "C" __global__ void convert_##FROM##_##TO(const T *x, U *out, uint32_t len, uint32_t aligned) { \
        BY_ALIGNMENT(aligned, map, x, out, len, Convert{})                                                 \
    }

CONVERSION(float, f32, float, f32)
CONVERSION(float, f32, bf16, bf16)
CONVERSION(float, f32, half, f16)
CONVERSION(bf16, bf16, float, f32)
CONVERSION(bf16, bf16, bf16, bf16)
CONVERSION(bf16, bf16, half, f16)
CONVERSION(half, f16, float, f32)
CONVERSION(half, f16, bf16, bf16)
CONVERSION(half, f16, half, f16)
CONVERSION(uint8_t, u8, float, f32)

extern "C" __global__ void pixels(const uint8_t *x, float *out, uint32_t len, uint32_t aligned) {
    BY_ALIGNMENT(aligned, map, x, out, len, Pixel{})
}
