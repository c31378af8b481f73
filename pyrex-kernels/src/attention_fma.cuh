// Attention of a few rows that share their keys, with plain multiplications in f32: for f32, and for any
// head_dim.
#pragma once
#include "attention.cuh"

constexpr uint32_t FMA_THREADS = 128;
constexpr uint32_t FMA_KEYS = 32; // of a tile

// `ROWS` rows against one tile of keys after another. For scores, `LANES` threads share a row; for sums, a
// thread has four columns of `rows_each` rows, so that all threads have some.
template <typename T, int ROWS> class FmaAttention {
    static constexpr uint32_t LANES = FMA_THREADS / ROWS;
    static constexpr uint32_t SCORES = FMA_KEYS / LANES; // of a thread

    uint32_t head_dim, pitch, quads, rows_each;
    float *q, *k, *p, *factors; // [ROWS, pitch], [FMA_KEYS, pitch], [FMA_KEYS, ROWS], [ROWS]
    uint32_t *slots;            // [FMA_KEYS]
    float maximum = -INFINITY, denominator = 0.0f;
    float4 sums[ROWS] = {};

  public:
    __device__ FmaAttention(float *shared, uint32_t head_dim) : head_dim(head_dim) {
        // Each row begins four banks after the one before, so that eight threads read as many rows at once.
        pitch = (head_dim + 31) / 32 * 32 + 4;
        q = shared;
        k = q + ROWS * pitch;
        p = k + FMA_KEYS * pitch;
        factors = p + FMA_KEYS * ROWS;
        slots = reinterpret_cast<uint32_t *>(factors + ROWS);
        quads = head_dim / 4;
        const uint32_t shares = FMA_THREADS / quads;
        rows_each = (ROWS + shares - 1) / shares;
    }

    // The row whose scores this thread helps with.
    __device__ uint32_t row() const { return threadIdx.x / LANES; }

    // Takes the rows that there are, at `offset(row)` of `from`; the others are zeros.
    template <typename Offset> __device__ void load_rows(const T *from, uint32_t count, Offset offset) {
        for (uint32_t i = threadIdx.x; i < ROWS * quads; i += FMA_THREADS) {
            const uint32_t row = i / quads, column = i % quads * 4;
            const float4 zeros = {0.0f, 0.0f, 0.0f, 0.0f};
            store4(q + row * pitch + column, row < count ? load4(from + offset(row) + column) : zeros);
        }
    }

    // Attends to `keys`; this thread's row sees those in `seen`.
    __device__ void attend(const Cache<T> &cache, Range keys, Range seen, float scale) {
        for (uint32_t first = keys.begin; first < keys.end; first += FMA_KEYS) {
            const uint32_t count = min(FMA_KEYS, keys.end - first);
            load_keys(cache, first, count);
            weigh(first, count, seen, scale);
            __syncthreads();
            add_values(cache, count);
        }
    }

    // Calls `emit(row, column, sums, {maximum, denominator})` for each four columns of each row.
    template <typename Emit> __device__ void finish(Emit emit) {
        for (uint32_t step = 1; step < LANES; step *= 2)
            denominator += __shfl_xor_sync(ALL_LANES, denominator, step);
        float2 *stats = reinterpret_cast<float2 *>(p);
        __syncthreads();
        if (threadIdx.x % LANES == 0) stats[row()] = {maximum, denominator};
        __syncthreads();
        const uint32_t first_row = threadIdx.x / quads * rows_each, column = threadIdx.x % quads * 4;
#pragma unroll
        for (uint32_t i = 0; i < ROWS; i++) {
            const uint32_t row = first_row + i;
            if (i < rows_each && row < ROWS) emit(row, column, sums[i], stats[row]);
        }
    }

  private:
    __device__ void load_keys(const Cache<T> &cache, uint32_t first, uint32_t count) {
        __syncthreads();
        if (threadIdx.x < count) slots[threadIdx.x] = cache.slot(first + threadIdx.x);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count * quads; i += FMA_THREADS) {
            const uint32_t key = i / quads, column = i % quads * 4;
            store4(k + key * pitch + column, load4(cache.keys + slots[key] * cache.stride + column));
        }
        __syncthreads();
    }

    // Scores of the tile's keys, and from them weights relative to the greatest score so far.
    __device__ void weigh(uint32_t first, uint32_t count, Range seen, float scale) {
        const uint32_t lane = threadIdx.x % LANES;
        float scores[SCORES], greatest = maximum;
#pragma unroll
        for (uint32_t i = 0; i < SCORES; i++) {
            const uint32_t key = lane + i * LANES;
            const bool is_seen = key < count && first + key >= seen.begin && first + key < seen.end;
            scores[i] = is_seen ? score(key) * scale : -INFINITY;
            greatest = fmaxf(greatest, scores[i]);
        }
        for (uint32_t step = 1; step < LANES; step *= 2)
            greatest = fmaxf(greatest, __shfl_xor_sync(ALL_LANES, greatest, step));
        const float factor = exp_below(maximum - shift_of(greatest));
        maximum = greatest;
        denominator *= factor;
#pragma unroll
        for (uint32_t i = 0; i < SCORES; i++) {
            const float weight = exp_below(scores[i] - shift_of(greatest));
            denominator += weight;
            p[(lane + i * LANES) * ROWS + row()] = weight;
        }
        if (lane == 0) factors[row()] = factor;
    }

    __device__ float score(uint32_t key) const {
        const float *a = q + row() * pitch, *b = k + key * pitch;
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
        for (uint32_t i = 0; i < head_dim; i += 4) {
            const float4 x = load4(a + i), y = load4(b + i);
            sum.x = fmaf(x.x, y.x, sum.x);
            sum.y = fmaf(x.y, y.y, sum.y);
            sum.z = fmaf(x.z, y.z, sum.z);
            sum.w = fmaf(x.w, y.w, sum.w);
        }
        return (sum.x + sum.y) + (sum.z + sum.w);
    }

    __device__ void add_values(const Cache<T> &cache, uint32_t count) {
        const uint32_t first_row = threadIdx.x / quads * rows_each, column = threadIdx.x % quads * 4;
        if (first_row >= ROWS) return;
#pragma unroll
        for (uint32_t i = 0; i < ROWS; i++) {
            if (i < rows_each && first_row + i < ROWS) sums[i] = scaled(sums[i], factors[first_row + i]);
        }
        for (uint32_t key = 0; key < count; key++) {
            const float4 value = load4(cache.values + slots[key] * cache.stride + column);
            const float *weights = p + key * ROWS + first_row;
#pragma unroll
            for (uint32_t i = 0; i < ROWS; i++) {
                if (i < rows_each && first_row + i < ROWS) sums[i] = add_scaled(sums[i], value, weights[i]);
            }
        }
    }
};

// Attention of a tile of rows, from the first to the last key that one of them sees.
template <typename T, int ROWS>
__device__ void attend_rows_fma(const Rows<T> &rows, const Cache<T> &cache, void *shared, float scale) {
    FmaAttention<T, ROWS> attention(static_cast<float *>(shared), rows.head_dim);
    attention.load_rows(rows.q, rows.count, [&](uint32_t row) { return rows.offset(row); });
    Range by_any = {0xffffffff, 0};
    for (uint32_t row = 0; row < rows.count; row++) {
        const Range of_row = rows.sees(row);
        by_any = {min(by_any.begin, of_row.begin), max(by_any.end, of_row.end)};
    }
    attention.attend(cache, by_any, rows.sees(attention.row()), scale);
    attention.finish([&](uint32_t row, uint32_t column, float4 sums, float2 stats) {
        if (row < rows.count) store4(rows.out + rows.offset(row) + column, scaled(sums, 1.0f / stats.y));
    });
}
