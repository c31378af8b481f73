// The orders in which tokens are kept, each cut by `cutoff`.
#pragma once
#include "cutoff.cuh"
#include "sampling.cuh"

constexpr uint32_t GROUP_LEN = WARP;

// Ranks a token by its weight, and by its id among those of weight `edge`.
__device__ __forceinline__ uint64_t place(double weight, double edge, uint32_t token_id, const Order &order) {
    if (weight == edge) return order.rank(1, token_id);
    return weight > edge ? order.lowest(2) : 0;
}

// The greatest of the groups' greatest.
struct GreatestGroups {
    static constexpr uint32_t AT_ONCE = 8;

    const uint32_t *keys;
    uint32_t len, num_wanted;
    Order order;
    uint64_t low, high;

    __device__ uint64_t rank(uint32_t i) const { return order.rank(keys[i], i); }
    __device__ uint64_t measure(uint32_t) const { return 1; }
    __device__ uint64_t target(uint64_t) const { return num_wanted; }
};

// The greatest logits, among those of some groups or among all.
template <typename T> struct GreatestLogits {
    static constexpr uint32_t AT_ONCE = 4;

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
    __device__ uint64_t measure(uint32_t) const { return 1; }
    __device__ uint64_t target(uint64_t) const { return num_wanted; }
};

// Weights as integers, so large that they fill 62 bits together: their sums are exact, and rounding a weight costs
// less than adding it to a sum in f64 would.
template <typename T> struct Masses {
    const Logits<T> &logits;
    const Weights &weights;
    Order order;
    // Lower ranks have been left by top-k.
    uint64_t least_rank;
    double scale;

    __device__ double weight(uint32_t id) const {
        const uint32_t key = logits.key(id);
        return key != 0 && order.rank(key, id) >= least_rank ? weights(logits.value(key)) : -1.0;
    }
    __device__ uint64_t measure(double weight) const {
        return weight < 0.0 ? 0 : __double2ull_rn(weight * scale);
    }
};

// The likeliest tokens by their logits alone: the lowest logit of the nucleus.
template <typename T> struct NucleusByLogit {
    static constexpr uint32_t AT_ONCE = 1;

    const Masses<T> &masses;
    uint32_t len;
    double top_p;
    uint64_t low, high;

    __device__ uint64_t rank(uint32_t i) const { return masses.logits.key(i); }
    __device__ uint64_t measure(uint32_t i) const { return masses.measure(masses.weight(i)); }
    __device__ uint64_t target(uint64_t total) const {
        return max(__double2ull_ru(top_p * __ull2double_rn(total)), 1ull);
    }
};

// The likeliest tokens as they are sorted, by weight and then by id, once it is known how much they are to measure and
// what the last of them weighs.
template <typename T> struct NucleusByPlace {
    static constexpr uint32_t AT_ONCE = 1;

    const Masses<T> &masses;
    uint32_t len;
    double edge;
    uint64_t needed, low, high;

    __device__ uint64_t rank(uint32_t i) const { return place(masses.weight(i), edge, i, masses.order); }
    __device__ uint64_t measure(uint32_t i) const { return masses.measure(masses.weight(i)); }
    __device__ uint64_t target(uint64_t) const { return needed; }
};
