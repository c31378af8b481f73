// What the attention kernels share: which rows ask, and where the keys that they see lie.
#pragma once
#include "tensor.cuh"

constexpr uint32_t ALL_LANES = 0xffffffff;

// The arguments of the paged kernels, as `Paged` in attention.rs explains them. `block_size` is 1 <<
// block_shift.
template <typename T> struct Paged {
    const T *q, *keys, *values;
    const uint32_t *block_tables, *query_start, *positions;
    T *out;
    uint32_t first_sequence, last_sequence, heads, kv_heads, head_dim, table_len, block_shift, window;
    float scale;
};

#define PAGED_PARAMETERS(T)                                                                                  \
    const T *q, const T *keys, const T *values, const uint32_t *block_tables, const uint32_t *query_start,   \
        const uint32_t *positions, T *out, uint32_t first_sequence, uint32_t last_sequence, uint32_t heads,  \
        uint32_t kv_heads, uint32_t head_dim, uint32_t table_len, uint32_t block_shift, uint32_t window,     \
        float scale
#define PAGED(T)                                                                                             \
    Paged<T> { q, keys, values, block_tables, query_start, positions, out, first_sequence, last_sequence,    \
               heads, kv_heads, head_dim, table_len, block_shift, window, scale }

// Keys begin..end of a sequence.
struct Range {
    uint32_t begin, end;
};

// The keys and values of one head of one sequence. Without a table they lie one behind another from slot
// `first` on.
template <typename T> struct Cache {
    const T *keys, *values;
    const uint32_t *table;
    uint32_t shift, first;
    size_t stride; // elements from one slot to the next

    __device__ uint32_t slot(uint32_t key) const {
        if (!table) return first + key;
        return (table[key >> shift] << shift) | (key & ((1u << shift) - 1));
    }
};

template <typename T>
__device__ Cache<T> paged_cache(const Paged<T> &a, uint32_t sequence, uint32_t kv_head) {
    const size_t head = size_t(kv_head) * a.head_dim;
    const uint32_t *table = a.block_tables + size_t(sequence) * a.table_len;
    return {a.keys + head, a.values + head, table, a.block_shift, 0, size_t(a.kv_heads) * a.head_dim};
}

// What a query at `position` sees.
__device__ __forceinline__ Range seen_from(uint32_t position, uint32_t window) {
    const uint32_t end = position + 1;
    return {end > window ? end - window : 0, end};
}

// Some rows of one sequence that share their keys: of each token the heads of a group, one token after
// another.
template <typename T> struct Rows {
    const T *q;
    T *out;
    const uint32_t *positions; // of the sequence's first token; none: every row sees all `keys` keys
    uint32_t keys, window;
    uint32_t token, head;  // the sequence's first token, the group's first head
    uint32_t first, count; // of the rows of the sequence, these
    uint32_t group, heads, head_dim;

    __device__ size_t offset(uint32_t row) const {
        const uint32_t packed = first + row;
        return (size_t(token + packed / group) * heads + head + packed % group) * head_dim;
    }

    // A row that is not there sees nothing.
    __device__ Range sees(uint32_t row) const {
        if (row >= count) return {0, 0};
        return positions ? seen_from(positions[(first + row) / group], window) : Range{0, keys};
    }
};

// One of the tiles into which the rows of each sequence are cut.
struct Tile {
    uint32_t sequence, start, rows; // its rows of the batch
    uint32_t first;                 // the first of its packed rows
    bool exists;
};

// Finds tile `index` of sequences first..last, of which each row counts `group` times and a tile has
// `tile_rows` of these. The tiles of a sequence come in reverse: those that see most are begun first. The
// lanes of a warp look together.
__device__ Tile find_tile(const uint32_t *starts, uint2 sequences, uint32_t group, uint32_t tile_rows,
                          uint32_t index) {
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t base = sequences.x; base < sequences.y; base += 32) {
        const uint32_t sequence = base + lane;
        const bool inside = sequence < sequences.y;
        const uint32_t start = inside ? starts[sequence] : 0;
        const uint32_t rows = inside ? starts[sequence + 1] - start : 0;
        const uint32_t tiles = (rows * group + tile_rows - 1) / tile_rows;
        uint32_t until = tiles;
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t before = __shfl_up_sync(ALL_LANES, until, step);
            if (lane >= step) until += before;
        }
        const uint32_t found = __ballot_sync(ALL_LANES, until > index);
        if (found) {
            const uint32_t owner = __ffs(found) - 1;
            const uint32_t tile = __shfl_sync(ALL_LANES, until, owner) - 1 - index;
            return {base + owner, __shfl_sync(ALL_LANES, start, owner), __shfl_sync(ALL_LANES, rows, owner),
                    tile * tile_rows, true};
        }
        index -= __shfl_sync(ALL_LANES, until, 31);
    }
    return {0, 0, 0, 0, false};
}

constexpr float LOG2_E = 1.4426950408889634f;

// 2^x for x ≤ 0, where what would be subnormal is 0.
__device__ __forceinline__ float exp2_below(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float exp_below(float x) { return exp2_below(x * LOG2_E); }

// Of a maximum: what is subtracted from scores, none of which may have been seen yet.
__device__ __forceinline__ float shift_of(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

__device__ __forceinline__ uint32_t shared_address(const void *shared) {
    return uint32_t(__cvta_generic_to_shared(shared));
}

// As `load_tiles`, from an address in shared memory.
__device__ __forceinline__ void load_tiles_at(uint32_t (&tiles)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared)
                 : "memory");
}

// The same with each tile transposed.
__device__ __forceinline__ void load_transposed_tiles_at(uint32_t (&tiles)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared)
                 : "memory");
}

// Two numbers as bf16 and what that loses, again as bf16: together they are good to 16 bits.
struct SplitPair {
    uint32_t high, low;
};

__device__ __forceinline__ uint32_t pair_bits(__nv_bfloat162 pair) {
    return uint32_t(__bfloat16_as_ushort(pair.x)) | uint32_t(__bfloat16_as_ushort(pair.y)) << 16;
}

__device__ __forceinline__ SplitPair split(float x, float y) {
    const __nv_bfloat162 high = __floats2bfloat162_rn(x, y);
    const __nv_bfloat162 low = __floats2bfloat162_rn(x - to_f32(high.x), y - to_f32(high.y));
    return {pair_bits(high), pair_bits(low)};
}

__device__ __forceinline__ float4 load4(const float *x) { return *reinterpret_cast<const float4 *>(x); }
__device__ __forceinline__ float4 load4(const bf16 *x) {
    const uint2 bits = *reinterpret_cast<const uint2 *>(x);
    return {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
            __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u)};
}

__device__ __forceinline__ void store4(float *x, float4 value) { *reinterpret_cast<float4 *>(x) = value; }
__device__ __forceinline__ void store4(bf16 *x, float4 value) {
    const uint32_t low = pair_bits(__floats2bfloat162_rn(value.x, value.y));
    const uint32_t high = pair_bits(__floats2bfloat162_rn(value.z, value.w));
    *reinterpret_cast<uint2 *>(x) = {low, high};
}

__device__ __forceinline__ float4 scaled(float4 x, float by) {
    return {x.x * by, x.y * by, x.z * by, x.w * by};
}

__device__ __forceinline__ float4 added(float4 a, float4 b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// sum + x · by
__device__ __forceinline__ float4 add_scaled(float4 sum, float4 x, float by) {
    return {fmaf(x.x, by, sum.x), fmaf(x.y, by, sum.y), fmaf(x.z, by, sum.z), fmaf(x.w, by, sum.w)};
}
