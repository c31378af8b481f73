// Where a ranking is cut: the greatest ranks are kept until what they measure is enough.
#pragma once
#include "block.cuh"

constexpr uint32_t CUTOFF_THREADS = 1024;

struct CutoffMemory {
    static constexpr uint32_t DIGIT_BITS = 11;
    static constexpr uint32_t BINS_PER_THREAD = (1u << DIGIT_BITS) / CUTOFF_THREADS;

    uint64_t bins[1u << DIGIT_BITS];
    uint64_t warps[WARP];
    // What was found: a bin, what it measures, and what all greater ones do.
    uint64_t measure, above;
    uint32_t digit;
};

__device__ __forceinline__ uint64_t scan_warp(uint64_t value) {
#pragma unroll
    for (uint32_t delta = 1; delta < WARP; delta *= 2) {
        const uint64_t before = __shfl_up_sync(ALL_LANES, value, delta);
        if (threadIdx.x % WARP >= delta) value += before;
    }
    return value;
}

// Shared memory adds 32 bits at once; of 64 a thread tries again until no other came between. Here many add
// to few bins.
__device__ __forceinline__ void add_to_bin(uint64_t *bin, uint64_t value) {
    uint32_t *halves = reinterpret_cast<uint32_t *>(bin);
    const uint32_t low = uint32_t(value), before = atomicAdd(&halves[0], low);
    const uint32_t high = uint32_t(value >> 32) + (before + low < before);
    if (high != 0) atomicAdd(&halves[1], high);
}

// The same of 1, where a bin has fewer than 2^32.
__device__ __forceinline__ void count_in_bin(uint64_t *bin) {
    atomicAdd(reinterpret_cast<uint32_t *>(bin), 1u);
}

// Adds to each digit's bin what the ranks measure that have `prefix` above that digit.
template <typename Ranking>
__device__ void fill_bins(const Ranking &ranking, uint64_t prefix, uint32_t shift, uint32_t width,
                          CutoffMemory &memory) {
    constexpr uint32_t NUM = Ranking::AT_ONCE;
    const uint64_t mask = (1ull << width) - 1;
    for (uint32_t bin = threadIdx.x; bin <= mask; bin += CUTOFF_THREADS) memory.bins[bin] = 0;
    __syncthreads();
    for (uint32_t start = threadIdx.x; start < ranking.len; start += NUM * CUTOFF_THREADS) {
        uint64_t ranks[NUM];
#pragma unroll
        for (uint32_t j = 0; j < NUM; j++) {
            const uint32_t i = start + j * CUTOFF_THREADS;
            ranks[j] = i < ranking.len ? ranking.rank(i) : 0;
        }
#pragma unroll
        for (uint32_t j = 0; j < NUM; j++) {
            const bool counts = ranks[j] >= ranking.low && ranks[j] >> shift >> width == prefix;
            if (!counts) continue;
            uint64_t *bin = &memory.bins[ranks[j] >> shift & mask];
            if constexpr (Ranking::COUNTS) count_in_bin(bin);
            else add_to_bin(bin, ranking.measure(start + j * CUTOFF_THREADS));
        }
    }
    __syncthreads();
}

// Finds the greatest bin at which the sum over it and all greater ones reaches `target`; while that is zero,
// the ranking says what it is for this total. Returns whether there is such a bin.
template <typename Ranking>
__device__ bool find_bin(const Ranking &ranking, uint32_t num_bins, uint64_t &target, CutoffMemory &memory) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t first = threadIdx.x * CutoffMemory::BINS_PER_THREAD;
    uint64_t own[CutoffMemory::BINS_PER_THREAD], sum = 0;
#pragma unroll
    for (uint32_t j = 0; j < CutoffMemory::BINS_PER_THREAD; j++) {
        own[j] = first + j < num_bins ? memory.bins[num_bins - 1 - first - j] : 0;
        sum += own[j];
    }
    const uint64_t through = scan_warp(sum);
    if (lane == WARP - 1) memory.warps[warp] = through;
    __syncthreads();
    const uint64_t warps = scan_warp(memory.warps[lane]);
    const uint64_t total = __shfl_sync(ALL_LANES, warps, WARP - 1);
    const uint64_t before = __shfl_sync(ALL_LANES, warps, warp - 1);
    if (target == 0) target = ranking.target(total);
    uint64_t above = through - sum + (warp == 0 ? 0 : before);
#pragma unroll
    for (uint32_t j = 0; j < CutoffMemory::BINS_PER_THREAD; j++) {
        if (above < target && above + own[j] >= target) {
            memory.digit = num_bins - 1 - first - j;
            memory.measure = own[j];
            memory.above = above;
        }
        above += own[j];
    }
    __syncthreads();
    return total >= target;
}

// Ranks from `least` on are kept; those of that rank itself must measure `needed`.
struct Cut {
    uint64_t least, needed;
};

// Where to cut if the greatest ranks are kept until they measure `ranking.target(total)`; at `ranking.low` if
// they never do. Those of one rank are kept or left together.
//
// A ranking has `len` members with ranks from `low`, at least 1, to `high`; whose rank is lower takes no
// part. A thread loads `AT_ONCE` of them before it waits for one. `rank(i)` and what it measures,
// `measure(i)`, are integers: the order of additions does not matter. If it `COUNTS`, each measures 1.
// `suffices(excess)` says whether so much more than wanted may be kept as well.
template <typename Ranking> __device__ Cut cutoff(const Ranking &ranking, CutoffMemory &memory) {
    uint32_t shift = 64 - __clzll(ranking.low ^ ranking.high);
    uint64_t prefix = ranking.high >> shift, target = 0;
    while (shift > 0) {
        const uint32_t width = min(shift, CutoffMemory::DIGIT_BITS);
        shift -= width;
        fill_bins(ranking, prefix, shift, width, memory);
        if (!find_bin(ranking, 1u << width, target, memory)) return {ranking.low, 0};
        prefix = prefix << width | memory.digit;
        target -= memory.above;
        if (ranking.suffices(memory.measure - target)) break;
    }
    const uint64_t least = prefix << shift;
    return {least > ranking.low ? least : ranking.low, target};
}
