// What all threads of a block do together; all of them must take part.
#pragma once
#include <stdint.h>

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;

template <typename Value> __device__ __forceinline__ Value exchange(Value value, uint32_t lane_mask) {
    return __shfl_xor_sync(ALL_LANES, value, lane_mask);
}

// Lanes are combined in an order that is always the same; every lane gets the same bits.
template <typename Value, typename Combine>
__device__ __forceinline__ Value reduce_warp(Value value, Combine combine) {
#pragma unroll
    for (uint32_t mask = WARP / 2; mask > 0; mask /= 2) value = combine(value, exchange(value, mask));
    return value;
}

// `shared` has room for one value of each warp. Every thread gets the result.
template <typename Value, typename Combine>
__device__ Value reduce_block(Value value, Value identity, Combine combine, Value *shared) {
    const uint32_t lane = threadIdx.x % WARP, num_warps = blockDim.x / WARP;
    value = reduce_warp(value, combine);
    if (lane == 0) shared[threadIdx.x / WARP] = value;
    __syncthreads();
    value = reduce_warp(lane < num_warps ? shared[lane] : identity, combine);
    __syncthreads();
    return value;
}

struct Sum {
    template <typename Value> __device__ Value operator()(Value a, Value b) const { return a + b; }
};

struct Greatest {
    template <typename Value> __device__ Value operator()(Value a, Value b) const { return a > b ? a : b; }
};
