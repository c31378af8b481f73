// What a token is chosen by: logits as integers in their order, weights, and the times of a race.
#pragma once
#include "block.cuh"
#include "common.cuh"

typedef float f32;

constexpr uint32_t NO_TOKEN = 0xffffffffu;

// What the host asks of one row, as `record` in sampling.rs lays it out.
struct Parameters {
    float temperature;
    uint32_t top_k;
    double top_p;
    double min_p;
    uint64_t seed;
    uint32_t index;
    uint32_t reserved;

    // Whether so few are kept that one block can hold them.
    __device__ bool is_narrow(uint32_t most) const { return top_k != 0 && top_k <= most; }
};

// `[len]`: the logits of a row, capped unless `soft_cap` is zero. Their keys are integers in the same order;
// zero is what cannot be chosen, NaN and minus infinity. The two zeros are one.
template <typename T> struct Logits {
    static constexpr uint32_t KEY_BITS = 8 * sizeof(T);
    // The key that minus infinity would have: all that can be chosen have greater ones.
    static constexpr uint32_t MINUS_INFINITY = (1u << (KEY_BITS - 9)) - 1;

    const T *values;
    uint32_t len;
    float soft_cap;

    __device__ Logits(const T *all, uint32_t row, uint32_t len, float soft_cap)
        : values(all + size_t(row) * len), len(len), soft_cap(soft_cap) {}

    __device__ float capped(float x) const {
        if (soft_cap == 0.0f) return x;
        return rounded<T>(rounded<T>(tanhf(rounded<T>(x / soft_cap))) * soft_cap);
    }

    __device__ uint32_t key(uint32_t i) const {
        const float x = capped(to_f32(values[i]));
        if (!(x > -INFINITY)) return 0;
        const uint32_t bits = __float_as_uint(x + 0.0f);
        return (bits >> 31 ? ~bits : bits | 0x80000000u) >> (32 - KEY_BITS);
    }

    __device__ static float value(uint32_t key) {
        constexpr uint32_t TOP = 1u << (KEY_BITS - 1);
        return __uint_as_float((key & TOP ? key ^ TOP : ~key) << (32 - KEY_BITS));
    }
};

// Greatest key first, lowest index first among equals, in one integer; zero is nothing.
struct Order {
    uint32_t index_bits;

    __device__ explicit Order(uint32_t len) : index_bits(32 - __clz(len - 1)) {}
    __device__ uint64_t rank(uint32_t key, uint32_t index) const {
        return key == 0 ? 0 : uint64_t(key) << index_bits | (mask() - index);
    }
    __device__ uint64_t lowest(uint32_t key) const { return key == 0 ? 1 : uint64_t(key) << index_bits; }
    __device__ uint64_t highest(uint32_t key) const { return lowest(key) | mask(); }
    __device__ uint32_t key(uint64_t rank) const { return uint32_t(rank >> index_bits); }
    __device__ uint32_t index(uint64_t rank) const { return mask() - (uint32_t(rank) & mask()); }
    __device__ uint32_t mask() const { return (1u << index_bits) - 1; }
};

// `exp((logit - greatest) / temperature)`: 1 for the greatest.
struct Weights {
    double temperature, scaled_greatest;

    __device__ Weights(float temperature, float greatest)
        : temperature(temperature), scaled_greatest(double(greatest) / double(temperature)) {}
    __device__ double operator()(float logit) const {
        return exp(double(logit) / temperature - scaled_greatest);
    }
};

// Philox4x32-10, its first two words.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
__device__ __forceinline__ uint2 philox(uint4 counter, uint64_t seed) {
    uint32_t key_0 = uint32_t(seed), key_1 = uint32_t(seed >> 32);
#pragma unroll
    for (uint32_t round = 0; round < 10; round++) {
        const uint64_t a = uint64_t(0xD2511F53u) * counter.x, b = uint64_t(0xCD9E8D57u) * counter.z;
        counter = make_uint4(uint32_t(b >> 32) ^ counter.y ^ key_0, uint32_t(b),
                             uint32_t(a >> 32) ^ counter.w ^ key_1, uint32_t(a));
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    return make_uint2(counter.x, counter.y);
}

// A token and when it arrives: the first wins, the lowest id among equals.
struct Runner {
    double time = INFINITY;
    uint32_t token_id = 0;

    __device__ bool beats(const Runner &other) const {
        return time < other.time || (time == other.time && token_id < other.token_id);
    }
};

struct First {
    __device__ Runner operator()(const Runner &a, const Runner &b) const { return b.beats(a) ? b : a; }
};

template <> __device__ __forceinline__ Runner exchange(Runner runner, uint32_t lane_mask) {
    runner.time = exchange(runner.time, lane_mask);
    runner.token_id = exchange(runner.token_id, lane_mask);
    return runner;
}

// A token's time is exponentially distributed with its weight as the rate, and depends on no other token.
__device__ __forceinline__ Runner run(const Parameters &wanted, uint32_t position, uint32_t token_id,
                                      double weight) {
    const uint2 random = philox(make_uint4(position, 0, wanted.index, token_id), wanted.seed);
    const uint64_t bits = (uint64_t(random.x) << 32 | random.y) >> 12;
    const double uniform = (double(bits) + 0.5) * 0x1p-52;
    Runner runner;
    runner.time = -log(uniform) / weight;
    runner.token_id = token_id;
    return runner;
}
