// Attention of many rows that share their keys: a tile of rows against one tile of keys after another, on
// tensor cores.
#pragma once
#include "attention.cuh"

constexpr uint32_t TILE_WARPS = 8, TILE_THREADS = TILE_WARPS * 32;
constexpr uint32_t TILE_KEYS = 32;

// What all warps of a block read, from shared memory: registers are short.
template <typename T> struct TileTask {
    Rows<T> rows;
    Cache<T> cache;
    float scale;
    Range by_any, by_all; // the keys that some row, and that every row sees
    Range seen[TILE_WARPS * 16];
};

// The scores of 16 rows for a tile of keys, in the fragments of a product's result: a lane has those of the
// keys 8 i + 2 (lane % 4) and the one after, of row lane / 4 and then of the row 8 further.
typedef float Scores[TILE_KEYS / 8][4];

// The address in shared memory, `chunks` chunks of 16 bytes further in a row, if chunks are permuted by ^
// with a number below 8: what is added to a chunk's number must not carry.
__device__ __forceinline__ uint32_t chunks_further(uint32_t address, uint32_t chunks) {
    return (address ^ chunks % 8 * 16) + chunks / 8 * 128;
}

// The same number, of which the compiler knows nothing: else it keeps what follows from it in registers from
// tile to tile.
__device__ __forceinline__ uint32_t fresh(uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}

// The online softmax of a warp's 16 rows, and the order of things. `Products` knows the numbers: it copies
// tiles to shared memory, multiplies queries by keys and weights by values, and keeps the sums. In places 0
// and 1 are keys, in 2 and 3 values: one tile is worked on, three are on their way.
template <class Products> class TileAttention {
    using T = typename Products::Number;

    TileTask<T> &task;
    Products products;
    float maximum[2] = {-INFINITY, -INFINITY}, denominator[2] = {0.0f, 0.0f}; // scores here are times log2(e)

  public:
    // `task` has its rows, its cache and its scale.
    __device__ TileAttention(TileTask<T> &task, void *shared) : task(task), products(shared) {
        find_seen();
        products.load_queries(task.rows);
    }

    __device__ void run() {
        const uint32_t first = task.by_any.begin / TILE_KEYS;
        copy_keys(first);
        copy_values(first);
        copy_keys(first + 1);
        for (uint32_t tile = first; tile * TILE_KEYS < task.by_any.end; tile++) {
            Scores scores = {};
            next_tile();
            copy_values(tile + 1);
            products.score(tile % 2, scores);
            next_tile();
            copy_keys(tile + 2);
            products.complete(scores);
            weigh(tile * TILE_KEYS, scores);
            products.add_values(2 + tile % 2, scores);
        }
        wait_for_copies<0>();
        for (uint32_t half = 0; half < 2; half++) {
            denominator[half] += __shfl_xor_sync(ALL_LANES, denominator[half], 1);
            denominator[half] += __shfl_xor_sync(ALL_LANES, denominator[half], 2);
        }
        products.write(task.rows, denominator);
    }

  private:
    __device__ void find_seen() {
        Range any = {0xffffffff, 0}, all = {0, 0xffffffff};
        for (uint32_t row = threadIdx.x % 32; row < Products::ROWS; row += 32) {
            const Range seen = task.rows.sees(row);
            if (threadIdx.x < 32) task.seen[row] = seen;
            if (row >= task.rows.count) continue;
            any = {min(any.begin, seen.begin), max(any.end, seen.end)};
            all = {max(all.begin, seen.begin), min(all.end, seen.end)};
        }
        any = {__reduce_min_sync(ALL_LANES, any.begin), __reduce_max_sync(ALL_LANES, any.end)};
        all = {__reduce_max_sync(ALL_LANES, all.begin), __reduce_min_sync(ALL_LANES, all.end)};
        if (threadIdx.x == 0) {
            task.by_any = any;
            task.by_all = all;
        }
        __syncthreads();
    }

    // Waits for the oldest copy of all threads. When they are past here, all have also left the tile before
    // it.
    __device__ static void next_tile() {
        wait_for_copies<2>();
        __syncthreads();
    }

    __device__ void copy_keys(uint32_t tile) const { copy(task.cache.keys, tile, tile % 2); }
    __device__ void copy_values(uint32_t tile) const { copy(task.cache.values, tile, 2 + tile % 2); }

    // Begins to copy a tile; of keys that no row sees, as behind the last, there are zeros.
    __device__ void copy(const T *from, uint32_t tile, uint32_t place) const {
        constexpr uint32_t CHUNKS = Products::D * sizeof(T) / 16; // of a row
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS * CHUNKS / TILE_THREADS; i++) {
            const uint32_t index = i * TILE_THREADS + threadIdx.x;
            const uint32_t row = index / CHUNKS, chunk = index % CHUNKS, key = tile * TILE_KEYS + row;
            const bool exists = key >= task.by_any.begin && key < task.by_any.end;
            const size_t column = chunk * (16 / sizeof(T));
            const T *source = from + (exists ? task.cache.slot(key) * task.cache.stride + column : 0);
            copy_async(products.at(place, row, chunk), source, exists ? 16 : 0);
        }
        end_copies();
    }

    // Scores become weights relative to the greatest score so far; the sums so far are scaled to the same.
    __device__ void weigh(uint32_t first_key, Scores &scores) {
        const float log2_scale = task.scale * LOG2_E;
        float greatest[2] = {maximum[0], maximum[1]};
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) scores[i][j] *= log2_scale;
        }
        const bool all_seen = first_key >= task.by_all.begin && first_key + TILE_KEYS <= task.by_all.end;
        if (!all_seen) hide_unseen(first_key, scores);
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) greatest[j / 2] = fmaxf(greatest[j / 2], scores[i][j]);
        }
        rescale(greatest);
        const float shift[2] = {shift_of(maximum[0]), shift_of(maximum[1])};
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                scores[i][j] = exp2_below(scores[i][j] - shift[j / 2]);
                denominator[j / 2] += scores[i][j];
            }
        }
    }

    __device__ void hide_unseen(uint32_t first_key, Scores &scores) const {
        const uint32_t row = Products::first_row(), first = first_key + threadIdx.x % 4 * 2;
        const Range seen[2] = {task.seen[row], task.seen[row + 8]};
#pragma unroll
        for (uint32_t i = 0; i < TILE_KEYS / 8; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                const uint32_t key = first + i * 8 + j % 2;
                if (key < seen[j / 2].begin || key >= seen[j / 2].end) scores[i][j] = -INFINITY;
            }
        }
    }

    __device__ void rescale(float (&greatest)[2]) {
        float factors[2];
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            greatest[half] = fmaxf(greatest[half], __shfl_xor_sync(ALL_LANES, greatest[half], 1));
            greatest[half] = fmaxf(greatest[half], __shfl_xor_sync(ALL_LANES, greatest[half], 2));
            factors[half] = exp2_below(maximum[half] - shift_of(greatest[half]));
            maximum[half] = greatest[half];
            denominator[half] *= factors[half];
        }
        if (!__all_sync(ALL_LANES, factors[0] == 1.0f && factors[1] == 1.0f)) products.scale_sums(factors);
    }
};

// Attends to a task that is of this block's threads: they have agreed that there is one.
template <class Products, typename Fill> __device__ void attend_tile(Fill fill) {
    extern __shared__ __align__(128) uint4 shared[];
    __shared__ TileTask<typename Products::Number> task;
    if (threadIdx.x == 0) fill(task);
    __syncthreads();
    TileAttention<Products> attention(task, shared);
    attention.run();
}
