// Attention of any number of rows per sequence over a paged cache.
#include "attention_fma.cuh"
#include "products_bf16.cuh"

namespace {

constexpr uint32_t FMA_ROWS = 16;

// The rows of a tile, for the grid's key head.
template <typename T> __device__ Rows<T> rows_of(const Paged<T> &a, const Tile &tile, uint32_t tile_rows) {
    const uint32_t group = a.heads / a.kv_heads;
    Rows<T> rows;
    rows.q = a.q;
    rows.out = a.out;
    rows.positions = a.positions + tile.start;
    rows.keys = 0;
    rows.window = a.window;
    rows.token = tile.start;
    rows.head = blockIdx.y * group;
    rows.first = tile.first;
    rows.count = min(tile_rows, tile.rows * group - tile.first);
    rows.group = group;
    rows.heads = a.heads;
    rows.head_dim = a.head_dim;
    return rows;
}

template <typename T> __device__ Tile tile_of_block(const Paged<T> &a, uint32_t tile_rows) {
    const uint2 sequences = {a.first_sequence, a.last_sequence};
    return find_tile(a.query_start, sequences, a.heads / a.kv_heads, tile_rows, blockIdx.x);
}

template <class Products, typename T = typename Products::Number>
__device__ void prefill_tiles(const Paged<T> &a) {
    const Tile tile = tile_of_block(a, Products::ROWS);
    if (!tile.exists) return;
    attend_tile<Products>([&](TileTask<T> &task) {
        task.rows = rows_of(a, tile, Products::ROWS);
        task.cache = paged_cache(a, tile.sequence, blockIdx.y);
        task.scale = a.scale;
    });
}

template <typename T> __device__ void prefill_fma(const Paged<T> &a) {
    extern __shared__ __align__(128) uint4 shared[];
    const Tile tile = tile_of_block(a, FMA_ROWS);
    if (!tile.exists) return;
    const Rows<T> rows = rows_of(a, tile, FMA_ROWS);
    attend_rows_fma<T, FMA_ROWS>(rows, paged_cache(a, tile.sequence, blockIdx.y), shared, a.scale);
}

} // namespace

#define PREFILL_KERNEL(NAME, T, THREADS, BLOCKS, ...)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(PAGED_PARAMETERS(T)) {                \
        __VA_ARGS__(PAGED(T));                                                                               \
    }

PREFILL_KERNEL(paged_prefill_f32, float, FMA_THREADS, 2, prefill_fma)
PREFILL_KERNEL(paged_prefill_bf16, bf16, FMA_THREADS, 2, prefill_fma)
PREFILL_KERNEL(paged_prefill_bf16_64, bf16, TILE_THREADS, 2, prefill_tiles<Bf16Products<64, 1>>)
PREFILL_KERNEL(paged_prefill_bf16_128, bf16, TILE_THREADS, 1, prefill_tiles<Bf16Products<128, 1>>)
PREFILL_KERNEL(paged_prefill_bf16_256, bf16, TILE_THREADS, 1, prefill_tiles<Bf16Products<256, 1>>)
PREFILL_KERNEL(paged_prefill_bf16_512, bf16, TILE_THREADS, 1, prefill_tiles<Bf16Products<512, 2>>)
