// Decode on tensor cores, in bf16.
#pragma once
#include "decode_parts.cuh"

// Keys are the rows of a product and heads its columns, so that no row is padding. Each warp takes tiles of
// its own and copies its lanes' share of the keys and values ahead into a ring; a lane copies just what it
// will read, so nobody waits for anybody. Numbers lie in the fragments as they come from memory, 16 bytes a
// lane: which of a product's inner numbers is which does not matter if both factors agree, and neither does
// which row of the result is which column of a value.
template <int D> struct TensorDecode {
    static constexpr int CHUNK = D < 256 ? D : 256;        // columns that are copied at once
    static constexpr int CHUNKS = D / CHUNK;               // of keys, and as many of values
    static constexpr int STEPS = 2 * CHUNKS;               // of a tile
    static constexpr int COPIES = CHUNK / 16;              // of a lane
    static constexpr int RING = D < 256 ? 4 : D / 256 + 1; // chunks on their way: up to 24 KB of a warp
    static constexpr uint32_t QUERY_BYTES = D * HEADS * 2;
    static constexpr uint32_t RING_BYTES = RING * COPIES * 32 * 16; // of a warp
    static constexpr uint32_t NO_SLOT = 0xffffffff;
    static_assert(HEADS * D * 4 <= RING_BYTES, "a warp's sums take the place of its ring");

    const Paged<bf16> &a;
    const Part &part;
    Cache<bf16> cache;
    uint4 *query, *ring;      // [D / 32, lanes], [RING, COPIES, lanes]
    uint32_t *weights;        // [4, 8, 4]: of 16 keys for 8 heads in two parts
    uint32_t lane, row, pair; // of fragments: row = lane / 4, pair = lane % 4

    uint32_t next_tile;       // whose keys are copied next
    uint32_t slot, next_slot; // of key lane % 16, in the tile that is being copied and in the next
    uint32_t turn = 0;        // of the ring: which chunk is read, and then copied anew

    float2 maximum = {-INFINITY, -INFINITY}, denominator = {0.0f, 0.0f}; // of heads 2 pair, 2 pair + 1
    float sums[D / 64][4][4] = {}; // of columns 64 i + 8 row + 2 j and the one after, for these two heads

    __device__ TensorDecode(const Paged<bf16> &a, const Part &part, uint4 *shared, uint32_t *weights)
        : a(a), part(part), cache(paged_cache(a, part.sequence, part.kv_head)), query(shared) {
        const uint32_t warp = threadIdx.x / 32;
        ring = shared + (QUERY_BYTES + warp * RING_BYTES) / 16;
        this->weights = weights + warp * 128;
        lane = threadIdx.x % 32;
        row = lane / 4;
        pair = lane % 4;
        next_tile = part.first + warp;
        next_slot = slot_in(next_tile);
    }

    // The slot of key lane % 16 of a tile, if the row sees it.
    __device__ uint32_t slot_in(uint32_t tile) const {
        const uint32_t key = tile * TILE + lane % TILE;
        const bool is_seen = tile < part.last && key >= part.seen.begin && key < part.seen.end;
        return is_seen ? cache.slot(key) : NO_SLOT;
    }

    __device__ void copy(uint32_t place, const bf16 *from, uint32_t key_slot, uint32_t column) const {
        const bool exists = key_slot != NO_SLOT;
        const bf16 *source = from + (exists ? key_slot * cache.stride + column : 0);
        copy_async(ring + (turn * COPIES + place) * 32 + lane, source, exists ? 16 : 0);
    }

    // Copies the keys `row` and `row` + 8 of a tile, of each 32 columns 8.
    __device__ void copy_keys(uint32_t chunk) const {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t key_slot = __shfl_sync(ALL_LANES, slot, row + half * 8);
#pragma unroll
            for (uint32_t i = 0; i < COPIES / 2; i++)
                copy(i * 2 + half, cache.keys, key_slot, chunk * CHUNK + i * 32 + pair * 8);
        }
    }

    // Copies the values 2 pair, 2 pair + 1 and those 8 further, of each 64 columns 8.
    __device__ void copy_values(uint32_t chunk) const {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t key_slot = __shfl_sync(ALL_LANES, slot, pair * 2 + i % 2 + i / 2 * 8);
#pragma unroll
            for (uint32_t j = 0; j < COPIES / 4; j++)
                copy(j * 4 + i, cache.values, key_slot, chunk * CHUNK + j * 64 + row * 8);
        }
    }

    // Copies step `step` of a tile, keys first, then values; if there is no such tile, nothing, as a group of
    // its own nevertheless.
    __device__ void copy_step(uint32_t step) {
        if (step == 0) {
            slot = next_slot;
            next_tile += WARPS;
            next_slot = slot_in(next_tile);
        }
        if (next_tile - WARPS < part.last) {
            if (step < CHUNKS) copy_keys(step);
            else copy_values(step - CHUNKS);
        }
        end_copies();
        turn = STEPS % RING == 0 ? (step + 1) % RING : turn + 1 == RING ? 0 : turn + 1;
    }

    // Adds the products of a chunk of keys; even and odd products go by themselves, as each waits for the one
    // before.
    __device__ void score(uint32_t chunk, float (&scores)[2][4]) const {
#pragma unroll
        for (uint32_t i = 0; i < COPIES / 2; i++) {
            const uint4 low = at(2 * i), high = at(2 * i + 1);
            const uint4 q = query[(chunk * (CHUNK / 32) + i) * 32 + lane];
            mma(scores[0], {low.x, high.x, low.y, high.y}, {q.x, q.y});
            mma(scores[1], {low.z, high.z, low.w, high.w}, {q.z, q.w});
        }
    }

    __device__ uint4 at(uint32_t place) const { return ring[(turn * COPIES + place) * 32 + lane]; }

    // Makes weights of a tile's scores; the sums so far are scaled to the same maximum.
    __device__ void weigh(uint32_t tile, const float (&scores)[2][4], uint32_t (&w)[4]) {
        float score[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t key = tile * TILE + row + i / 2 * 8;
            const bool is_seen = key >= part.seen.begin && key < part.seen.end;
            score[i] = is_seen ? (scores[0][i] + scores[1][i]) * a.scale : -INFINITY;
        }
        float2 greatest = {fmaxf(score[0], score[2]), fmaxf(score[1], score[3])};
        for (uint32_t step = 4; step < 32; step *= 2) {
            greatest.x = fmaxf(greatest.x, __shfl_xor_sync(ALL_LANES, greatest.x, step));
            greatest.y = fmaxf(greatest.y, __shfl_xor_sync(ALL_LANES, greatest.y, step));
        }
        rescale({fmaxf(maximum.x, greatest.x), fmaxf(maximum.y, greatest.y)});
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) score[i] = exp_below(score[i] - (i % 2 ? maximum.y : maximum.x));
        denominator.x += score[0] + score[2];
        denominator.y += score[1] + score[3];
        transpose(split(score[0], score[1]), split(score[2], score[3]), w);
    }

    __device__ void rescale(float2 greatest) {
        const float2 factor = {exp_below(maximum.x - greatest.x), exp_below(maximum.y - greatest.y)};
        maximum = greatest;
        if (__all_sync(ALL_LANES, factor.x == 1.0f && factor.y == 1.0f)) return;
        denominator.x *= factor.x;
        denominator.y *= factor.y;
#pragma unroll
        for (uint32_t i = 0; i < D / 64; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 16; j++) sums[i][j / 4][j % 4] *= j % 2 ? factor.y : factor.x;
        }
    }

    // Weights as scores lie become weights as a factor: of keys 0..8 and 8..16 the high parts, then the low.
    __device__ void transpose(SplitPair first, SplitPair second, uint32_t (&w)[4]) {
        __syncwarp();
        weights[lane] = first.high;
        weights[32 + lane] = second.high;
        weights[64 + lane] = first.low;
        weights[96 + lane] = second.low;
        __syncwarp();
        load_transposed_tiles_at(w, shared_address(weights + lane * 4));
    }

    // Adds a chunk of values, weighed.
    __device__ void add_values(uint32_t chunk, const uint32_t (&w)[4]) {
#pragma unroll
        for (uint32_t i = 0; i < COPIES / 4; i++) {
            const uint4 v0 = at(4 * i), v1 = at(4 * i + 1), v2 = at(4 * i + 2), v3 = at(4 * i + 3);
            float (&sum)[4][4] = sums[chunk * (CHUNK / 64) + i];
            add_pair(sum[0], {v0.x, v1.x, v2.x, v3.x}, w);
            add_pair(sum[1], {v0.y, v1.y, v2.y, v3.y}, w);
            add_pair(sum[2], {v0.z, v1.z, v2.z, v3.z}, w);
            add_pair(sum[3], {v0.w, v1.w, v2.w, v3.w}, w);
        }
    }

    // Two columns of four values become two rows of a factor.
    __device__ static void add_pair(float (&sum)[4], const uint32_t (&v)[4], const uint32_t (&w)[4]) {
        const uint32_t a[4] = {__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[0], v[1], 0x7632),
                               __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[2], v[3], 0x7632)};
        mma(sum, a, {w[0], w[1]});
        mma(sum, a, {w[2], w[3]});
    }

    // Each warp's lanes load a share of the block's queries, in the order in which all will read them.
    __device__ void load_query() {
        const bf16 *q = a.q + (size_t(part.row) * a.heads + part.head + row) * D + pair * 8;
        for (uint32_t i = threadIdx.x / 32; i < D / 32; i += WARPS)
            query[i * 32 + lane] =
                row < part.heads ? *reinterpret_cast<const uint4 *>(q + i * 32) : uint4{0, 0, 0, 0};
    }

    __device__ void run() {
#pragma unroll
        for (uint32_t step = 0; step < RING; step++) copy_step(step % STEPS);
        load_query();
        __syncthreads();
        for (uint32_t tile = part.first + threadIdx.x / 32; tile < part.last; tile += WARPS) {
            float scores[2][4] = {};
            uint32_t w[4];
#pragma unroll
            for (uint32_t step = 0; step < STEPS; step++) {
                wait_for_copies<RING - 1>();
                if (step < CHUNKS) score(step, scores);
                else add_values(step - CHUNKS, w);
                if (step == CHUNKS - 1) weigh(tile, scores, w);
                copy_step((step + RING) % STEPS);
            }
        }
        wait_for_copies<0>();
        __syncwarp();
    }

    // Leaves the warp's sums in the place of its ring, heads × columns.
    __device__ void leave_sums(float2 (&stats)[WARPS][HEADS]) {
        for (uint32_t step = 4; step < 32; step *= 2) {
            denominator.x += __shfl_xor_sync(ALL_LANES, denominator.x, step);
            denominator.y += __shfl_xor_sync(ALL_LANES, denominator.y, step);
        }
        if (row == 0) {
            stats[threadIdx.x / 32][2 * pair] = {maximum.x, denominator.x};
            stats[threadIdx.x / 32][2 * pair + 1] = {maximum.y, denominator.y};
        }
        float *left = reinterpret_cast<float *>(ring);
#pragma unroll
        for (uint32_t i = 0; i < D / 64 * 4; i++) {
            const uint32_t half = i / 2 % 2, head = pair * 2 + half;
            const uint32_t column = i / 4 * 64 + row * 8 + i % 2 * 4;
            const float(&s)[4] = sums[i / 4][i % 2 * 2], (&t)[4] = sums[i / 4][i % 2 * 2 + 1];
            store4(left + place(head, column), {s[half], s[half + 2], t[half], t[half + 2]});
        }
    }

    // Four columns of a head, permuted so that the eight lanes that write together find different banks.
    __device__ static uint32_t place(uint32_t head, uint32_t column) {
        return head * D + (column ^ head / 2 % 2 * 4 ^ head / 4 * 16);
    }

    // Merges what the warps left.
    __device__ void finish(const Findings<bf16> &findings, float2 (&stats)[WARPS][HEADS]) const {
        const float *left = reinterpret_cast<const float *>(query) + QUERY_BYTES / 4;
        for (uint32_t i = threadIdx.x; i < HEADS * D / 4; i += DECODE_THREADS) {
            const uint32_t head = i / (D / 4), column = i % (D / 4) * 4;
            float2 whole = {-INFINITY, 0.0f};
#pragma unroll
            for (uint32_t warp = 0; warp < WARPS; warp++) whole.x = fmaxf(whole.x, stats[warp][head].x);
            float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
            for (uint32_t warp = 0; warp < WARPS; warp++) {
                const float factor = exp_below(stats[warp][head].x - whole.x);
                whole.y = fmaf(stats[warp][head].y, factor, whole.y);
                sum = add_scaled(sum, load4(left + warp * RING_BYTES / 4 + place(head, column)), factor);
            }
            findings.put(head, column, sum, whole);
        }
    }
};
