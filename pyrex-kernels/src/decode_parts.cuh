// The keys of a row split over thread blocks, and what these find merged.
//
// How they are split depends on how many the row sees and on the device, never on what other rows there are:
// so do the row's bits. A block weighs one part for up to 8 heads of a group, which share each key that is
// read; a second kernel merges the parts.
#pragma once
#include "attention.cuh"

constexpr uint32_t HEADS = 8;     // of a block, the columns of its products
constexpr uint32_t TILE = 16;     // keys, the rows of its products
constexpr uint32_t MIN_TILES = 4; // of a part
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
    part.index = index;
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
    part.count = split.x;
    return part;
}

// Where a group's parts leave what they found.
struct Partials {
    float2 *stats; // [parts, HEADS]: maxima and denominators
    float *sums;   // [parts, HEADS, head_dim]
    uint2 *split;  // the row, and in how many parts it was split

    // The scratch holds the stats of all groups, then their sums, then their splits.
    __device__ Partials(float *scratch, uint32_t head_dim, uint32_t parts, uint32_t groups, uint32_t group) {
        const size_t all = size_t(groups) * parts * HEADS, first = size_t(group) * parts * HEADS;
        stats = reinterpret_cast<float2 *>(scratch) + first;
        sums = scratch + all * 2 + first * head_dim;
        split = reinterpret_cast<uint2 *>(scratch + all * (2 + head_dim)) + group;
    }
};

// What a block found, and where it goes.
template <typename T> struct Findings {
    const Paged<T> &a;
    const Part &part;
    const Partials partials;

    // Puts four columns of a head where they belong: into `out` if there is but one part.
    __device__ void put(uint32_t head, uint32_t column, float4 sums, float2 stats) const {
        if (head >= part.heads) return;
        const uint32_t place = part.index * HEADS + head;
        if (part.count == 1) {
            T *out = a.out + (size_t(part.row) * a.heads + part.head + head) * a.head_dim;
            store4(out + column, scaled(sums, 1.0f / stats.y));
        } else {
            store4(partials.sums + size_t(place) * a.head_dim + column, sums);
            if (column == 0) partials.stats[place] = stats;
        }
    }
};
