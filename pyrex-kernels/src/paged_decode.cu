// Attention of one row per sequence over a paged cache.
#include "attention_fma.cuh"
#include "decode_tensor.cuh"

namespace {

// Has each block of the grid [parts, groups, sequences] weigh its part, if there is one; the first of a group
// says how many there are.
template <typename T, typename Weigh>
__device__ void decode_part(const Paged<T> &a, float *scratch, uint32_t max_parts, Weigh weigh) {
    __shared__ Part part;
    const uint32_t groups = gridDim.y * gridDim.z, group = blockIdx.z * gridDim.y + blockIdx.y;
    const Findings<T> findings = {a, part, Partials(scratch, a.head_dim, gridDim.x, groups, group)};
    if (threadIdx.x == 0) {
        part = part_of(a, a.first_sequence + blockIdx.z, blockIdx.y, blockIdx.x, max_parts);
        if (part.index == 0) *findings.partials.split = {part.row, part.count};
    }
    __syncthreads();
    if (part.index < part.count) weigh(part, findings);
}

template <int D> __device__ void decode_tensor(const Paged<bf16> &a, float *scratch, uint32_t max_parts) {
    extern __shared__ __align__(16) uint4 shared[];
    __shared__ __align__(16) uint32_t weights[WARPS * 128];
    __shared__ float2 stats[WARPS][HEADS];
    decode_part(a, scratch, max_parts, [&](const Part &part, const Findings<bf16> &findings) {
        TensorDecode<D> decode(a, part, shared, weights);
        decode.run();
        decode.leave_sums(stats);
        __syncthreads();
        decode.finish(findings, stats);
    });
}

template <typename T> __device__ void decode_fma(const Paged<T> &a, float *scratch, uint32_t max_parts) {
    extern __shared__ __align__(16) uint4 shared[];
    decode_part(a, scratch, max_parts, [&](const Part &part, const Findings<T> &findings) {
        FmaAttention<T, HEADS> attention(reinterpret_cast<float *>(shared), a.head_dim);
        const T *q = a.q + (size_t(part.row) * a.heads + part.head) * a.head_dim;
        attention.load_rows(q, part.heads, [&](uint32_t head) { return size_t(head) * a.head_dim; });
        const Range keys = {max(part.seen.begin, part.first * TILE), min(part.seen.end, part.last * TILE)};
        attention.attend(paged_cache(a, part.sequence, part.kv_head), keys, part.seen, a.scale);
        attention.finish([&](uint32_t head, uint32_t column, float4 sums, float2 stats) {
            findings.put(head, column, sums, stats);
        });
    });
}

constexpr uint32_t STRANDS = 8; // a warp each: it sums every eighth part of a head, 128 columns

// The maximum and the denominator over all parts of a head; the lanes of a warp look together.
__device__ float2 merged_stats(const float2 *stats, uint32_t parts) {
    const uint32_t lane = threadIdx.x % 32;
    float greatest = -INFINITY, denominator = 0.0f;
    for (uint32_t part = lane; part < parts; part += 32) greatest = fmaxf(greatest, stats[part * HEADS].x);
    for (uint32_t step = 1; step < 32; step *= 2)
        greatest = fmaxf(greatest, __shfl_xor_sync(ALL_LANES, greatest, step));
    for (uint32_t part = lane; part < parts; part += 32) {
        const float2 found = stats[part * HEADS];
        denominator = fmaf(found.y, exp_below(found.x - greatest), denominator);
    }
    for (uint32_t step = 1; step < 32; step *= 2)
        denominator += __shfl_xor_sync(ALL_LANES, denominator, step);
    return {greatest, denominator};
}

// Merges the parts of one head of one sequence, 128 columns. `max_parts`: as many as the scratch has room
// for.
template <typename T> __device__ void decode_merge(const Paged<T> &a, float *scratch, uint32_t max_parts) {
    __shared__ float4 strands[STRANDS][32];
    const uint32_t slices = (a.head_dim + 127) / 128, head = blockIdx.x / slices;
    const uint32_t group_len = a.heads / a.kv_heads, groups = (group_len + HEADS - 1) / HEADS;
    const uint32_t group = head / group_len * groups + head % group_len / HEADS, all = a.kv_heads * groups;
    const Partials partials(scratch, a.head_dim, max_parts, all * gridDim.y, blockIdx.y * all + group);
    const uint32_t parts = partials.split->y;
    if (parts < 2) return;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = head % group_len % HEADS;
    const uint32_t column = blockIdx.x % slices * 128 + lane * 4;
    const float2 *stats = partials.stats + row;
    const float2 whole = merged_stats(stats, parts);
    if (column < a.head_dim) {
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
        const float *sums = partials.sums + row * a.head_dim + column;
#pragma unroll 4
        for (uint32_t i = warp; i < parts; i += STRANDS) {
            const float factor = exp_below(stats[i * HEADS].x - whole.x);
            sum = add_scaled(sum, load4(sums + size_t(i) * HEADS * a.head_dim), factor);
        }
        strands[warp][lane] = sum;
    }
    __syncthreads();
    if (warp > 0 || column >= a.head_dim) return;
    float4 sum = strands[0][lane];
    for (uint32_t i = 1; i < STRANDS; i++) sum = added(sum, strands[i][lane]);
    T *out = a.out + (size_t(partials.split->x) * a.heads + head) * a.head_dim;
    store4(out + column, scaled(sum, 1.0f / whole.y));
}

} // namespace

#define DECODE_KERNEL(NAME, T, DECODE, BLOCKS)                                                               \
    extern "C" __global__ void __launch_bounds__(DECODE_THREADS, BLOCKS)                                     \
        NAME(PAGED_PARAMETERS(T), float *scratch, uint32_t max_parts) {                                      \
        DECODE(PAGED(T), scratch, max_parts);                                                                \
    }

DECODE_KERNEL(paged_decode_f32, float, decode_fma, 4)
DECODE_KERNEL(paged_decode_bf16, bf16, decode_fma, 4)
DECODE_KERNEL(paged_decode_bf16_64, bf16, decode_tensor<64>, 4)
DECODE_KERNEL(paged_decode_bf16_128, bf16, decode_tensor<128>, 4)
DECODE_KERNEL(paged_decode_bf16_256, bf16, decode_tensor<256>, 3)
DECODE_KERNEL(paged_decode_bf16_512, bf16, decode_tensor<512>, 2)

#define MERGE_KERNEL(NAME, T)                                                                                \
    extern "C" __global__ void __launch_bounds__(STRANDS * 32)                                               \
        NAME(PAGED_PARAMETERS(T), float *scratch, uint32_t max_parts) {                                      \
        decode_merge(PAGED(T), scratch, max_parts);                                                          \
    }

MERGE_KERNEL(paged_decode_merge_f32, float)
MERGE_KERNEL(paged_decode_merge_bf16, bf16)
