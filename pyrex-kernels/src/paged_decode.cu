// Attention of one row per sequence over a paged cache.
#include "attention_fma.cuh"
#include "decode_tensor.cuh"

namespace {

// What a block of the grid [parts, groups, sequences] has to do.
template <typename T>
__device__ Part part_of_block(const Paged<T> &a, uint32_t max_parts) {
    return part_of(a, a.first_sequence + blockIdx.z, blockIdx.y, blockIdx.x, max_parts);
}

__device__ Partials partials_of_block(float *scratch, uint32_t head_dim) {
    return {scratch, head_dim, gridDim.x, gridDim.y * gridDim.z, blockIdx.z * gridDim.y + blockIdx.y};
}

template <int D>
__device__ void decode_tensor(const Paged<bf16> &a, float *scratch, uint32_t max_parts, bool merges) {
    extern __shared__ __align__(16) uint4 shared[];
    __shared__ __align__(16) uint32_t weights[WARPS * 128];
    __shared__ float2 stats[WARPS][HEADS];
    const Part part = part_of_block(a, max_parts);
    if (part.index >= part.count) return;
    const Findings<bf16> findings = {a, part, partials_of_block(scratch, D)};
    TensorDecode<D> decode(a, part, shared, weights);
    decode.run();
    decode.leave_sums(stats);
    __syncthreads();
    decode.finish(findings, stats);
    if (merges) findings.arrive();
}

template <typename T>
__device__ void decode_fma(const Paged<T> &a, float *scratch, uint32_t max_parts, bool merges) {
    extern __shared__ __align__(16) uint4 shared[];
    const Part part = part_of_block(a, max_parts);
    if (part.index >= part.count) return;
    const Findings<T> findings = {a, part, partials_of_block(scratch, a.head_dim)};
    FmaAttention<T, HEADS> attention(reinterpret_cast<float *>(shared), a.head_dim);
    const T *q = a.q + (size_t(part.row) * a.heads + part.head) * a.head_dim;
    attention.load_rows(q, part.heads, [&](uint32_t head) { return size_t(head) * a.head_dim; });
    const Range keys = {max(part.seen.begin, part.first * TILE), min(part.seen.end, part.last * TILE)};
    attention.attend(paged_cache(a, part.sequence, part.kv_head), keys, part.seen, a.scale);
    attention.finish([&](uint32_t head, uint32_t column, float4 sums, float2 stats) {
        findings.put(head, column, sums, stats);
    });
    if (merges) findings.arrive();
}

// Merges 128 columns of one head of one sequence; a warp takes a strand.
template <typename T>
__device__ void decode_merge(const Paged<T> &a, float *scratch, uint32_t max_parts, uint32_t parts) {
    __shared__ float4 strands[STRANDS][32];
    const uint32_t slices = (a.head_dim + 127) / 128, head = blockIdx.x / slices;
    const uint32_t group_len = a.heads / a.kv_heads, groups = (group_len + HEADS - 1) / HEADS;
    const uint32_t group = head / group_len * groups + head % group_len / HEADS;
    const Part part = part_of(a, a.first_sequence + blockIdx.y, group, 0, max_parts);
    if (part.count < 2) return;
    const uint32_t all = a.kv_heads * groups;
    const Partials partials(scratch, a.head_dim, parts, all * gridDim.y, blockIdx.y * all + group);
    const HeadParts of_head(partials, head - part.head, part.count, a.head_dim);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t column = blockIdx.x % slices * 128 + lane * 4;
    const float2 whole = of_head.whole();
    if (column < a.head_dim) strands[warp][lane] = of_head.strand(warp, column, whole.x);
    __syncthreads();
    if (warp > 0 || column >= a.head_dim) return;
    float4 sum = strands[0][lane];
    for (uint32_t strand = 1; strand < STRANDS; strand++) sum = added(sum, strands[strand][lane]);
    const size_t row = size_t(part.row) * a.heads + head;
    store4(a.out + row * a.head_dim + column, scaled(sum, 1.0f / whole.y));
}

} // namespace

#define DECODE_KERNEL(NAME, T, DECODE, BLOCKS)                                                               \
    extern "C" __global__ void __launch_bounds__(DECODE_THREADS, BLOCKS)                                     \
        NAME(PAGED_PARAMETERS(T), float *scratch, uint32_t max_parts, uint32_t merges) {                     \
        DECODE(PAGED(T), scratch, max_parts, merges);                                                        \
    }

DECODE_KERNEL(paged_decode_f32, float, decode_fma, 4)
DECODE_KERNEL(paged_decode_bf16, bf16, decode_fma, 4)
DECODE_KERNEL(paged_decode_bf16_64, bf16, decode_tensor<64>, 4)
DECODE_KERNEL(paged_decode_bf16_128, bf16, decode_tensor<128>, 4)
DECODE_KERNEL(paged_decode_bf16_256, bf16, decode_tensor<256>, 2)
DECODE_KERNEL(paged_decode_bf16_512, bf16, decode_tensor<512>, 2)

#define MERGE_KERNEL(NAME, T)                                                                                \
    extern "C" __global__ void __launch_bounds__(STRANDS * 32)                                               \
        NAME(PAGED_PARAMETERS(T), float *scratch, uint32_t max_parts, uint32_t parts) {                      \
        decode_merge(PAGED(T), scratch, max_parts, parts);                                                   \
    }

MERGE_KERNEL(paged_decode_merge_f32, float)
MERGE_KERNEL(paged_decode_merge_bf16, bf16)
