// The orders in which tokens are kept, each cut by `cutoff`.
#pragma once
#include "cutoff.cuh"
#include "sampling.cuh"

constexpr uint32_t GROUP_LEN = WARP;

// The greatest of the groups' greatest. Some more may be kept, as their logits will be ranked anyway.
struct GreatestGroups {
    static constexpr uint32_t AT_ONCE = 8;
    static constexpr bool COUNTS = true;

    const uint32_t *keys;
    uint32_t len, num_wanted, num_spare;
    Order order;
    uint64_t low, high;

    __device__ uint64_t rank(uint32_t i) const { return order.rank(keys[i], i); }
    __device__ uint64_t target(uint64_t) const { return num_wanted; }
    __device__ bool suffices(uint64_t excess) const { return excess <= num_spare; }
};

// The greatest logits, among those of some groups or among all.
template <typename T> struct GreatestLogits {
    static constexpr uint32_t AT_ONCE = 4;
    static constexpr bool COUNTS = true;

    const Logits<T> &logits;
    // Null for all.
    const uint32_t *groups;
    uint32_t len, num_wanted;
    Order order;
    uint64_t low, high;

    __device__ uint32_t token_id(uint32_t i) const {
        return groups ? groups[i / GROUP_LEN] * GROUP_LEN + i % GROUP_LEN : i;
    }
    __device__ uint64_t rank(uint32_t i) const {
        const uint32_t id = token_id(i);
        return id < logits.len ? order.rank(logits.key(id), id) : 0;
    }
    __device__ uint64_t target(uint64_t) const { return num_wanted; }
    __device__ bool suffices(uint64_t excess) const { return excess == 0; }
};

// The likeliest tokens, of those that top-k leaves, by their logits alone. Weights are integers, so large
// that they fill 62 bits together: their sums are exact, and rounding a weight costs less than adding it to a
// sum in f64 would.
template <typename T> struct Nucleus {
    static constexpr uint32_t AT_ONCE = 1;
    static constexpr bool COUNTS = false;

    const Logits<T> &logits;
    const Weights &weights;
    uint32_t len;
    Order order;
    uint64_t least_rank;
    double scale, top_p;
    uint64_t low, high;

    __device__ uint64_t scaled(uint32_t key) const {
        return __double2ull_rn(weights(logits.value(key)) * scale);
    }
    __device__ uint64_t rank(uint32_t i) const {
        const uint32_t key = logits.key(i);
        return order.rank(key, i) >= least_rank ? key : 0;
    }
    __device__ uint64_t measure(uint32_t i) const { return scaled(logits.key(i)); }
    __device__ uint64_t target(uint64_t total) const {
        return max(__double2ull_ru(top_p * __ull2double_rn(total)), 1ull);
    }
    __device__ bool suffices(uint64_t) const { return false; }
};

// The border of a nucleus: tokens with greater keys are inside, with lower ones outside, and of those between
// the first ids are inside, for they weigh the same.
struct Edge {
    uint32_t low_key, high_key;

    __device__ uint64_t place(uint32_t key, uint32_t token_id, const Order &order) const {
        if (key < low_key) return 0;
        return key > high_key ? order.lowest(2) : order.rank(1, token_id);
    }
};

// The first ids on an edge, of those that top-k leaves.
template <typename T> struct FirstOnEdge {
    static constexpr uint32_t AT_ONCE = 4;
    static constexpr bool COUNTS = true;

    const Logits<T> &logits;
    const Edge &edge;
    uint32_t len;
    uint64_t num_wanted;
    Order order;
    uint64_t least_rank, low, high;

    __device__ uint64_t rank(uint32_t i) const {
        const uint32_t key = logits.key(i);
        return order.rank(key, i) >= least_rank ? edge.place(key, i, order) : 0;
    }
    __device__ uint64_t target(uint64_t) const { return num_wanted; }
    __device__ bool suffices(uint64_t excess) const { return excess == 0; }
};
