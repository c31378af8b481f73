// The keys of a row split over thread blocks, and what these find merged.
//
// How they are split depends on how many the row sees and on the device, never on what other rows there are: so do the row's
// bits. A block weighs one part for up to 8 heads of a group, which share each key that is read. Parts are merged by the block
// that comes last or, where there may be many, by a second kernel; both add in the same order.
#pragma once
#include "attention.cuh"

constexpr uint32_t HEADS = 8;       // of a block, the columns of its products
constexpr uint32_t TILE = 16;       // keys, the rows of its products
constexpr uint32_t MIN_TILES = 4;   // of a part
constexpr uint32_t STRANDS = 8;     // parts p, p + 8, … are added up on their own, then these sums
constexpr uint32_t COUNTERS = 4096; // of arrivals, at the beginning of the scratch
constexpr uint32_t DECODE_THREADS = 128, WARPS = DECODE_THREADS / 32;

// What a block has to do.
struct Part {
    uint32_t sequence, row;        // of the batch
    uint32_t kv_head, head, heads; // the first query head, and how many there are
    Range seen;                    // by the row
    uint32_t first, last;          // tiles of this part
    uint32_t index, count;         // this part of how many; none if there is nothing to do
};

// Parts of a row that sees `tiles` tiles, and tiles of each but the last.
__device__ __forceinline__ uint2 split_keys(uint32_t tiles, uint32_t max_parts) {
    const uint32_t each = max(MIN_TILES, (tiles + max_parts - 1) / max_parts);
    return {(tiles + each - 1) / each, each};
}

template <typename T>
__device__ Part part_of(const Paged<T> &a, uint32_t sequence, uint32_t group, uint32_t index,
                        uint32_t max_parts) {
    const uint32_t group_len = a.heads / a.kv_heads, groups = (group_len + HEADS - 1) / HEADS;
    const uint32_t offset = group % groups * HEADS;
    Part part = {};
    part.sequence = sequence;
    part.row = a.query_start[sequence];
    if (a.query_start[sequence + 1] == part.row) return part;
    part.kv_head = group / groups;
    part.head = part.kv_head * group_len + offset;
    part.heads = min(HEADS, group_len - offset);
    part.seen = seen_from(a.positions[part.row], a.window);
    const uint32_t first = part.seen.begin / TILE, last = (part.seen.end + TILE - 1) / TILE;
    const uint2 split = split_keys(last - first, max_parts);
    part.first = first + index * split.y;
    part.last = min(last, part.first + split.y);
    part.index = index;
    part.count = split.x;
    return part;
}

// Where a group's parts leave what they found: for each its maxima and denominators, and its sums.
struct Partials {
    uint32_t *arrived;
    float2 *stats; // [parts, HEADS]
    float *sums;   // [parts, HEADS, head_dim]

    __device__ Partials(float *scratch, uint32_t head_dim, uint32_t parts, uint32_t groups, uint32_t group) {
        const size_t first = size_t(group) * parts * HEADS;
        arrived = reinterpret_cast<uint32_t *>(scratch) + group;
        stats = reinterpret_cast<float2 *>(scratch + COUNTERS) + first;
        sums = scratch + COUNTERS + size_t(groups) * parts * HEADS * 2 + first * head_dim;
    }
};

// The parts of one head.
struct HeadParts {
    const float2 *stats;
    const float *sums;
    uint32_t count, head_dim;

    __device__ HeadParts(const Partials &partials, uint32_t head, uint32_t count, uint32_t head_dim)
        : stats(partials.stats + head), sums(partials.sums + head * head_dim), count(count),
          head_dim(head_dim) {}

    // The maximum and the denominator over all parts; the lanes of a warp look together.
    __device__ float2 whole() const {
        const uint32_t lane = threadIdx.x % 32;
        float greatest = -INFINITY, denominator = 0.0f;
        for (uint32_t part = lane; part < count; part += 32)
            greatest = fmaxf(greatest, stats[part * HEADS].x);
        for (uint32_t step = 1; step < 32; step *= 2)
            greatest = fmaxf(greatest, __shfl_xor_sync(ALL_LANES, greatest, step));
        for (uint32_t part = lane; part < count; part += 32) {
            const float2 found = stats[part * HEADS];
            denominator = fmaf(found.y, exp_below(found.x - greatest), denominator);
        }
        for (uint32_t step = 1; step < 32; step *= 2)
            denominator += __shfl_xor_sync(ALL_LANES, denominator, step);
        return {greatest, denominator};
    }

    // Four columns, summed over the parts of a strand and relative to `greatest`.
    __device__ float4 strand(uint32_t first, uint32_t column, float greatest) const {
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 2
        for (uint32_t part = first; part < count; part += STRANDS) {
            const float factor = exp_below(stats[part * HEADS].x - greatest);
            sum = add_scaled(sum, load4(sums + size_t(part) * HEADS * head_dim + column), factor);
        }
        return sum;
    }
};

// What a block found, and where it goes.
template <typename T> struct Findings {
    const Paged<T> &a;
    const Part &part;
    const Partials partials;

    __device__ T *out(uint32_t head) const {
        return a.out + (size_t(part.row) * a.heads + part.head + head) * a.head_dim;
    }

    // Puts four columns of a head where they belong: into `out` if there is but one part.
    __device__ void put(uint32_t head, uint32_t column, float4 sums, float2 stats) const {
        if (head >= part.heads) return;
        const uint32_t place = part.index * HEADS + head;
        if (part.count == 1) {
            store4(out(head) + column, scaled(sums, 1.0f / stats.y));
        } else {
            store4(partials.sums + size_t(place) * a.head_dim + column, sums);
            if (column == 0) partials.stats[place] = stats;
        }
    }

    // After all of a block's `put`: the block of a group that comes last merges, and leaves the counter at zero.
    __device__ void arrive() const {
        __shared__ bool is_last;
        if (part.count == 1) return;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            is_last = atomicAdd(partials.arrived, 1) == part.count - 1;
            if (is_last) *partials.arrived = 0;
        }
        __syncthreads();
        if (!is_last) return;
        __threadfence();
        for (uint32_t head = threadIdx.x / 32; head < part.heads; head += WARPS) merge(head);
    }

  private:
    __device__ void merge(uint32_t head) const {
        const HeadParts parts(partials, head, part.count, a.head_dim);
        const float2 whole = parts.whole();
        for (uint32_t column = threadIdx.x % 32 * 4; column < a.head_dim; column += 128) {
            float4 strands[STRANDS];
#pragma unroll
            for (uint32_t i = 0; i < STRANDS; i++) strands[i] = parts.strand(i, column, whole.x);
#pragma unroll
            for (uint32_t i = 1; i < STRANDS; i++) strands[0] = added(strands[0], strands[i]);
            store4(out(head) + column, scaled(strands[0], 1.0f / whole.y));
        }
    }
};
