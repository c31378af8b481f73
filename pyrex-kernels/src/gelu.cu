// gelu_tanh(gate) * up, rounded after each of the two.
#include "common.cuh"

template <typename T>
__device__ void gelu_mul(const T *gate, const T *up, T *out, uint32_t len) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) out[i] = from_f32<T>(rounded<T>(gelu_tanh(to_f32(gate[i]))) * to_f32(up[i]));
}

extern "C" __global__ void gelu_mul_f32(const float *gate, const float *up, float *out, uint32_t len) {
    gelu_mul(gate, up, out, len);
}

extern "C" __global__ void gelu_mul_bf16(const bf16 *gate, const bf16 *up, bf16 *out, uint32_t len) {
    gelu_mul(gate, up, out, len);
}
