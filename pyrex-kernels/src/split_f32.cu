// f32 as the sum of three bf16, so that tensor cores can multiply it without loss.
#include "clip.cuh"

// The high half of an f32 is a bf16: its sign, exponent and the first 8 of 24 bits. 16 are left, then 8.
extern "C" __global__ void split_f32(const float *x, uint16_t *parts, uint32_t len, float min, float max) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    float rest = clamp(x[i], min, max);
#pragma unroll
    for (int part = 0; part < 3; part++) {
        const uint32_t bits = __float_as_uint(rest);
        parts[part * size_t(len) + i] = bits >> 16;
        rest -= __uint_as_float(bits & 0xffff0000);
    }
}
