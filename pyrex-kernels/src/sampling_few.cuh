// A draw from so few tokens that one block sorts them.
#pragma once
#include "sampling_rankings.cuh"

// So many tokens can be sorted in shared memory, each by a thread of its own.
constexpr uint32_t MOST = CUTOFF_THREADS;

// Shared memory of a block that draws.
struct Workspace {
    CutoffMemory cutoff;
    // Candidates: at first in no order.
    double weights[MOST];
    uint32_t token_ids[MOST];
    uint32_t groups[MOST];
    uint32_t num_groups, num_tokens, num_kept;
    uint64_t ranks[WARP];
    double masses[WARP];
    Runner runners[WARP];
};

// Collects as many of the greatest logits as `groups` wants, at most `MOST`, and weighs them. Returns how
// many there are.
template <typename T>
__device__ uint32_t collect(const Logits<T> &logits, const GreatestGroups &groups, const Weights &weights,
                            Workspace &shared) {
    const Order order(logits.len);
    if (threadIdx.x == 0) shared.num_groups = shared.num_tokens = 0;
    __syncthreads();
    const uint64_t least_group = cutoff(groups, shared.cutoff).least;
    for (uint32_t i = threadIdx.x; i < groups.len; i += blockDim.x) {
        if (groups.rank(i) >= least_group) shared.groups[atomicAdd(&shared.num_groups, 1)] = i;
    }
    __syncthreads();
    // Each of these groups has a logit of at least this key, so that the k greatest have.
    const uint64_t low = order.lowest(groups.order.key(least_group));
    const uint64_t high = order.highest(groups.order.key(groups.high));
    const uint32_t num = shared.num_groups * GROUP_LEN;
    const GreatestLogits<T> tokens = {logits, shared.groups, num, groups.num_wanted, order, low, high};
    const uint64_t least = cutoff(tokens, shared.cutoff).least;
    for (uint32_t i = threadIdx.x; i < tokens.len; i += blockDim.x) {
        const uint64_t rank = tokens.rank(i);
        if (rank < least) continue;
        const uint32_t slot = atomicAdd(&shared.num_tokens, 1);
        shared.token_ids[slot] = order.index(rank);
        shared.weights[slot] = weights(logits.value(order.key(rank)));
    }
    __syncthreads();
    return shared.num_tokens;
}

// Likelier first, lower ids first among equals: a bitonic network over the next power of two.
__device__ void sort(uint32_t num, Workspace &shared) {
    const uint32_t i = threadIdx.x;
    uint32_t len = 1;
    while (len < num) len *= 2;
    if (num <= i && i < len) {
        shared.weights[i] = -1.0;
        shared.token_ids[i] = NO_TOKEN;
    }
    __syncthreads();
    for (uint32_t run = 2; run <= len; run *= 2) {
        for (uint32_t stride = run / 2; stride > 0; stride /= 2) {
            const uint32_t other = i ^ stride;
            if (i < other && other < len) {
                const double a = shared.weights[i], b = shared.weights[other];
                const uint32_t a_id = shared.token_ids[i], b_id = shared.token_ids[other];
                const bool in_order = a > b || (a == b && a_id < b_id);
                const bool wanted = (i & run) == 0;
                if (in_order != wanted) {
                    shared.weights[i] = b, shared.weights[other] = a;
                    shared.token_ids[i] = b_id, shared.token_ids[other] = a_id;
                }
            }
            __syncthreads();
        }
    }
}

// Keeps the likeliest of `num` sorted tokens whose likelier ones have less than `top_p` of `mass`, of their
// own mass if that is below zero. One thread adds, as the CPU does: likeliest first. Returns how many are
// kept, or zero if all of them do not reach it.
__device__ uint32_t keep_top_p(uint32_t num, double top_p, double mass, Workspace &shared) {
    if (threadIdx.x == 0) {
        if (mass < 0.0) {
            mass = 0.0;
            for (uint32_t i = 0; i < num; i++) mass += shared.weights[i];
        }
        const double target = top_p * mass;
        double above = shared.weights[0];
        uint32_t kept = 1;
        while (kept < num && above < target) above += shared.weights[kept++];
        shared.num_kept = above < target ? 0 : kept;
    }
    __syncthreads();
    return shared.num_kept;
}

__device__ uint32_t race_few(uint32_t num, const Parameters &wanted, uint32_t position, Workspace &shared) {
    Runner winner;
    if (threadIdx.x < num && shared.weights[threadIdx.x] >= wanted.min_p) {
        const uint32_t token_id = shared.token_ids[threadIdx.x];
        winner = First()(winner, run(wanted, position, token_id, shared.weights[threadIdx.x]));
    }
    return reduce_block(winner, Runner(), First(), shared.runners).token_id;
}
