// Products of a tile of attention in bf16.
#pragma once
#include "attention_tiles.cuh"

// Queries stay in registers, as the left factor of products with keys. `SLICES` warps share 16 rows: each has
// so many of their columns, scores these, adds the others' scores to them, and sums its own columns of the
// values. Weights are not rounded to bf16 but split in two, or they would be off by as much as the result's
// rounding.
template <int COLUMNS, int SLICES> class Bf16Products {
  public:
    using Number = bf16;
    static constexpr uint32_t D = COLUMNS, ROWS = TILE_WARPS / SLICES * 16;

  private:
    static constexpr int SLICE = D / SLICES; // columns of a warp
    static constexpr int STEPS = SLICE / 16; // of a product over them
    static constexpr uint32_t TILE_BYTES = TILE_KEYS * D * 2;

    char *const shared; // [4, TILE_KEYS, D]; of slices also [TILE_WARPS, TILE_KEYS / 8, 32] scores
    uint32_t lane, warp, slice;
    uint32_t q[STEPS][4];
    float sums[SLICE / 8][4] = {};

  public:
    __device__ Bf16Products(void *shared) : shared(static_cast<char *>(shared)) {
        lane = threadIdx.x % 32;
        warp = threadIdx.x / 32;
        slice = warp % SLICES;
    }

    // Of two rows, 8 apart, whose scores and sums this lane has.
    __device__ static uint32_t first_row() { return threadIdx.x / 32 / SLICES * 16 + threadIdx.x % 32 / 4; }

    // Rows that are not there are zeros.
    __device__ void load_queries(const Rows<bf16> &rows) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row = first_row() + half * 8;
            const bool exists = row < rows.count;
            const bf16 *from = rows.q + (exists ? rows.offset(row) : 0) + slice * SLICE + lane % 4 * 2;
#pragma unroll
            for (uint32_t step = 0; step < STEPS; step++) {
#pragma unroll
                for (uint32_t right = 0; right < 2; right++) {
                    const uint32_t *pair = reinterpret_cast<const uint32_t *>(from + step * 16 + right * 8);
                    q[step][right * 2 + half] = exists ? *pair : 0;
                }
            }
        }
    }

    // Rows lie one behind another, their chunks of 16 bytes permuted so that those in one column lie in
    // different banks.
    __device__ char *at(uint32_t place, uint32_t row, uint32_t chunk) const {
        return shared + place * TILE_BYTES + row * D * 2 + (chunk ^ row % 8) * 16;
    }

    // Keys as they lie are the right factor: their columns are its rows.
    __device__ void score(uint32_t place, Scores &scores) const {
        const uint32_t row = lane % 8 + lane / 16 * 8;
        const uint32_t first = fresh(shared_address(at(place, row, slice * (SLICE / 8) + lane / 8 % 2)));
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step++) {
#pragma unroll
            for (uint32_t i = 0; i < TILE_KEYS / 16; i++) {
                uint32_t keys[4];
                load_tiles_at(keys, chunks_further(first, step * 2) + i * 16 * D * 2);
                mma(scores[i * 2], q[step], {keys[0], keys[1]});
                mma(scores[i * 2 + 1], q[step], {keys[2], keys[3]});
            }
        }
        if constexpr (SLICES > 1) {
#pragma unroll
            for (uint32_t i = 0; i < TILE_KEYS / 8; i++)
                scores_of(warp)[i * 32] = {scores[i][0], scores[i][1], scores[i][2], scores[i][3]};
        }
    }

    // Adds the scores of the other slice; all threads have met since `score`.
    __device__ void complete(Scores &scores) const {
        static_assert(SLICES <= 2, "more than two scores would be added in another order in each warp");
        if constexpr (SLICES > 1) {
#pragma unroll
            for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
                const float4 other = scores_of(warp ^ 1)[i * 32];
                scores[i][0] += other.x;
                scores[i][1] += other.y;
                scores[i][2] += other.z;
                scores[i][3] += other.w;
            }
        }
    }

    __device__ void scale_sums(const float (&factors)[2]) {
#pragma unroll
        for (uint32_t i = 0; i < SLICE / 8; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) sums[i][j] *= factors[j / 2];
        }
    }

    // Weights as scores lie are a left factor; values as they lie, read transposed, the right one.
    __device__ void add_values(uint32_t place, const Scores &weights) {
        const uint32_t first = fresh(shared_address(at(place, lane % 16, slice * (SLICE / 8) + lane / 16)));
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS / 16; i++) {
            uint32_t high[4], low[4];
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                const float(&of_keys)[4] = weights[i * 2 + j / 2];
                const SplitPair pair = split(of_keys[j % 2 * 2], of_keys[j % 2 * 2 + 1]);
                high[j] = pair.high;
                low[j] = pair.low;
            }
#pragma unroll
            for (uint32_t j = 0; j < SLICE / 16; j++) {
                uint32_t values[4];
                load_transposed_tiles_at(values, chunks_further(first, j * 2) + i * 16 * D * 2);
                mma(sums[j * 2], high, {values[0], values[1]});
                mma(sums[j * 2 + 1], high, {values[2], values[3]});
                mma(sums[j * 2], low, {values[0], values[1]});
                mma(sums[j * 2 + 1], low, {values[2], values[3]});
            }
        }
    }

    __device__ void write(const Rows<bf16> &rows, const float (&denominator)[2]) const {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row = first_row() + half * 8;
            if (row >= rows.count) continue;
            bf16 *out = rows.out + rows.offset(row) + slice * SLICE + lane % 4 * 2;
            const float inverse = 1.0f / denominator[half];
#pragma unroll
            for (uint32_t i = 0; i < SLICE / 8; i++) {
                const float x = sums[i][half * 2] * inverse, y = sums[i][half * 2 + 1] * inverse;
                *reinterpret_cast<uint32_t *>(out + i * 8) = pair_bits(__floats2bfloat162_rn(x, y));
            }
        }
    }

  private:
    __device__ float4 *scores_of(uint32_t warp) const {
        return reinterpret_cast<float4 *>(shared + 4 * TILE_BYTES) + warp * (TILE_KEYS / 8) * 32 + lane;
    }
};
