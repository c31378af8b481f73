// Attention inside each segment, without order: every row sees all rows of its own.
#include "attention_fma.cuh"
#include "products_bf16.cuh"
#include "products_f32.cuh"

namespace {

constexpr uint32_t FMA_ROWS = 16;

template <typename T> struct Segments {
    const T *q, *keys, *values;
    const uint32_t *segment_start;
    T *out;
    uint32_t segments, heads, head_dim;
    float scale;
};

#define SEGMENT_PARAMETERS(T)                                                                                \
    const T *q, const T *keys, const T *values, const uint32_t *segment_start, T *out, uint32_t segments,    \
        uint32_t heads, uint32_t head_dim, float scale
#define SEGMENTS(T)                                                                                          \
    Segments<T> { q, keys, values, segment_start, out, segments, heads, head_dim, scale }

template <typename T> __device__ Tile tile_of_block(const Segments<T> &a, uint32_t tile_rows) {
    return find_tile(a.segment_start, {0, a.segments}, 1, tile_rows, blockIdx.x);
}

// The rows of a tile, for the grid's head.
template <typename T> __device__ Rows<T> rows_of(const Segments<T> &a, const Tile &tile, uint32_t tile_rows) {
    Rows<T> rows;
    rows.q = a.q;
    rows.out = a.out;
    rows.positions = nullptr;
    rows.keys = tile.rows;
    rows.window = 0xffffffff;
    rows.token = tile.start;
    rows.head = blockIdx.y;
    rows.first = tile.first;
    rows.count = min(tile_rows, tile.rows - tile.first);
    rows.group = 1;
    rows.heads = a.heads;
    rows.head_dim = a.head_dim;
    return rows;
}

template <typename T> __device__ Cache<T> cache_of(const Segments<T> &a, const Tile &tile) {
    const size_t head = size_t(blockIdx.y) * a.head_dim;
    return {a.keys + head, a.values + head, nullptr, 0, tile.start, size_t(a.heads) * a.head_dim};
}

template <class Products, typename T = typename Products::Number>
__device__ void segment_tiles(const Segments<T> &a) {
    const Tile tile = tile_of_block(a, Products::ROWS);
    if (!tile.exists) return;
    attend_tile<Products>([&](TileTask<T> &task) {
        task.rows = rows_of(a, tile, Products::ROWS);
        task.cache = cache_of(a, tile);
        task.scale = a.scale;
    });
}

template <typename T> __device__ void segment_fma(const Segments<T> &a) {
    extern __shared__ __align__(128) uint4 shared[];
    const Tile tile = tile_of_block(a, FMA_ROWS);
    if (!tile.exists) return;
    attend_rows_fma<T, FMA_ROWS>(rows_of(a, tile, FMA_ROWS), cache_of(a, tile), shared, a.scale);
}

} // namespace

#define SEGMENT_KERNEL(NAME, T, THREADS, BLOCKS, ...)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(SEGMENT_PARAMETERS(T)) {              \
        __VA_ARGS__(SEGMENTS(T));                                                                            \
    }

SEGMENT_KERNEL(segment_attention_f32, float, FMA_THREADS, 2, segment_fma)
SEGMENT_KERNEL(segment_attention_bf16, bf16, FMA_THREADS, 2, segment_fma)
SEGMENT_KERNEL(segment_attention_f32_64, float, TILE_THREADS, 2, segment_tiles<F32Products<64>>)
SEGMENT_KERNEL(segment_attention_bf16_64, bf16, TILE_THREADS, 2, segment_tiles<Bf16Products<64, 1>>)
