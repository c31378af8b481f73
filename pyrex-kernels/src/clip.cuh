// Clipped linears: what goes in and what comes out is clamped.
#pragma once
#include "common.cuh"

// NaN stays NaN.
__device__ __forceinline__ float clamp(float x, float min, float max) {
    return x < min ? min : x > max ? max : x;
}

// Bounds of what is multiplied and of what comes out.
struct Clip {
    float input_min, input_max, output_min, output_max;

    __device__ bool clips_input() const { return input_min != -INFINITY || input_max != INFINITY; }
};
