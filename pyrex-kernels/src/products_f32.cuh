// Products of a tile of attention in f32, on tensor cores.
#pragma once
#include "attention_tiles.cuh"

// A number as tf32, which has 11 bits, and what that loses, of which tf32 sees 11 bits again. Of two such
// numbers the product of the low parts is left out: what remains is good to about 21 bits. Whole numbers
// round faster than the conversion does.
struct SplitNumber {
    uint32_t high, low;
};

__device__ __forceinline__ SplitNumber split(float x) {
    const uint32_t high = (__float_as_uint(x) + 0x1000) & 0xffffe000;
    return {high, __float_as_uint(x - __uint_as_float(high))};
}

// c += a · b: a is 16 × 8, b 8 × 8, c 16 × 8 in f32, each in the fragments of mma.m16n8k8.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                              uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four numbers of a left factor, split.
struct SplitFragment {
    uint32_t high[4], low[4];

    __device__ SplitFragment(float a0, float a1, float a2, float a3) {
        const SplitNumber a[4] = {split(a0), split(a1), split(a2), split(a3)};
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            high[i] = a[i].high;
            low[i] = a[i].low;
        }
    }

    // c += a · b, the small products first.
    __device__ void multiply(float (&c)[4], float b0, float b1) const {
        const SplitNumber x = split(b0), y = split(b1);
        multiply_tf32(c, low, x.high, y.high);
        multiply_tf32(c, high, x.low, y.low);
        multiply_tf32(c, high, x.high, y.high);
    }
};

// Fragments hold numbers as they come from memory, 16 bytes a lane: which of a product's inner numbers is
// which does not matter if both factors agree, and neither does which column of the result is which column of
// the values.
template <int COLUMNS> class F32Products {
  public:
    using Number = float;
    static constexpr uint32_t D = COLUMNS, ROWS = TILE_WARPS * 16;

  private:
    static constexpr uint32_t TILE_BYTES = TILE_KEYS * D * 4;

    char *const shared;    // [4, TILE_KEYS, D], and behind it the queries
    float4 *const queries; // [D / 16, 2, TILE_THREADS]: columns 16 i + 4 pair and three more, of two rows
    uint32_t row, pair;    // of fragments: row = lane / 4, pair = lane % 4
    float sums[D / 32][4][4] = {}; // of columns 32 i + 8 pair + j, and 4 further, of two rows

  public:
    __device__ F32Products(void *shared)
        : shared(static_cast<char *>(shared)),
          queries(reinterpret_cast<float4 *>(static_cast<char *>(shared) + 4 * TILE_BYTES) + threadIdx.x) {
        row = threadIdx.x % 32 / 4;
        pair = threadIdx.x % 4;
    }

    // Of two rows, 8 apart, whose scores and sums this lane has.
    __device__ static uint32_t first_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }

    // Each thread keeps what it will need, where there is more room than in registers. Rows that are not
    // there are zeros.
    __device__ void load_queries(const Rows<float> &rows) const {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const bool exists = first_row() + half * 8 < rows.count;
            const float *from = rows.q + (exists ? rows.offset(first_row() + half * 8) : 0) + pair * 4;
#pragma unroll
            for (uint32_t i = 0; i < D / 16; i++)
                queries[(i * 2 + half) * TILE_THREADS] =
                    exists ? load4(from + i * 16) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
    }

    // Rows lie one behind another, their chunks of 16 bytes permuted so that eight lanes that read together
    // find different banks: of keys four chunks side by side of two rows, of values two chunks of every other
    // row of eight.
    __device__ char *at(uint32_t place, uint32_t row, uint32_t chunk) const {
        const uint32_t mask = ((row ^ row << 2) & 4) | (row & 2);
        return shared + place * TILE_BYTES + row * D * 4 + (chunk ^ mask) * 16;
    }

    __device__ void score(uint32_t place, Scores &scores) const {
        const uint32_t keys = fresh(shared_address(at(place, row, pair)));
#pragma unroll
        for (uint32_t i = 0; i < D / 16; i++) {
            const float4 low = load_shared(shared_address(queries + i * 2 * TILE_THREADS));
            const float4 high = load_shared(shared_address(queries + (i * 2 + 1) * TILE_THREADS));
            const SplitFragment first(low.x, high.x, low.y, high.y), second(low.z, high.z, low.w, high.w);
#pragma unroll
            for (uint32_t j = 0; j < TILE_KEYS / 8; j++) {
                const float4 key = load_shared(chunks_further(keys, i * 4) + j * 8 * D * 4);
                first.multiply(scores[j], key.x, key.y);
                second.multiply(scores[j], key.z, key.w);
            }
        }
    }

    __device__ void complete(Scores &) const {}

    __device__ void scale_sums(const float (&factors)[2]) {
#pragma unroll
        for (uint32_t i = 0; i < D / 32 * 16; i++) sums[i / 16][i / 4 % 4][i % 4] *= factors[i / 2 % 2];
    }

    // Weights as scores lie are a left factor whose inner numbers are the keys 2 pair and 2 pair + 1. Tensor
    // cores cut off what they add to a large sum: a tile's products are summed by themselves, then added.
    __device__ void add_values(uint32_t place, const Scores &weights) {
        const uint32_t even = fresh(shared_address(at(place, pair * 2, row)));
        const uint32_t odd = fresh(shared_address(at(place, pair * 2 + 1, row)));
#pragma unroll
        for (uint32_t j = 0; j < D / 32; j++) {
            float step[4][4] = {};
#pragma unroll
            for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
                const float(&w)[4] = weights[i];
                const SplitFragment left(w[0], w[2], w[1], w[3]);
                const float4 x = load_shared(chunks_further(even, j * 8) + i * 8 * D * 4);
                const float4 y = load_shared(chunks_further(odd, j * 8) + i * 8 * D * 4);
                left.multiply(step[0], x.x, y.x);
                left.multiply(step[1], x.y, y.y);
                left.multiply(step[2], x.z, y.z);
                left.multiply(step[3], x.w, y.w);
            }
#pragma unroll
            for (uint32_t i = 0; i < 16; i++) sums[j][i / 4][i % 4] += step[i / 4][i % 4];
        }
    }

    __device__ void write(const Rows<float> &rows, const float (&denominator)[2]) const {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            if (first_row() + half * 8 >= rows.count) continue;
            float *out = rows.out + rows.offset(first_row() + half * 8) + pair * 8;
            const float inverse = 1.0f / denominator[half];
#pragma unroll
            for (uint32_t i = 0; i < D / 32; i++) {
                const float(&s)[4][4] = sums[i];
#pragma unroll
                for (uint32_t right = 0; right < 2; right++) {
                    const uint32_t j = half * 2 + right;
                    store4(out + i * 32 + right * 4, scaled({s[0][j], s[1][j], s[2][j], s[3][j]}, inverse));
                }
            }
        }
    }

  private:
    __device__ static float4 load_shared(uint32_t address) {
        float4 x;
        asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                     : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                     : "r"(address)
                     : "memory");
        return x;
    }
};
