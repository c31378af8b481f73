// x · Wᵀ for any number of rows of x, bound by arithmetic.
#include "clip.cuh"
#include "tensor.cuh"

template <typename T> struct Product {
    const T *x;
    T *out;
    uint32_t rows, cols, out_cols;
    Clip clip;

    __device__ void write(uint32_t row, uint32_t out_col, float sum) const {
        if (row >= rows || out_col >= out_cols) return;
        out[size_t(row) * out_cols + out_col] = from_f32<T>(clamp(sum, clip.output_min, clip.output_max));
    }
};

// On tensor cores: weights of bf16, rows of a multiple of 16 bytes.
//
// A block takes DEPTH columns at a time, while what it takes next is on its way into shared memory. Its warps
// stand 4 high and 2 wide, and each makes 32 by 8 · TILES outputs.
constexpr uint32_t THREADS = 256, ROWS = 128, DEPTH = 32;

// Two neighbours, clamped to bounds that bf16 can hold.
__device__ uint32_t clamp_pair(uint32_t pair, const Clip &clip) {
    const float low = clamp(__uint_as_float(pair << 16), clip.input_min, clip.input_max);
    const float high = clamp(__uint_as_float(pair & 0xffff0000), clip.input_min, clip.input_max);
    return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632);
}

// Where the 16 bytes of chunk `chunk` of row `row` lie in a panel. Neither a warp's copies nor its reads want
// a bank twice: the same chunk of eight rows of bf16, or of four of f32, lies in different banks.
template <typename T> __device__ uint32_t place(uint32_t row, uint32_t chunk);
template <> __device__ uint32_t place<bf16>(uint32_t row, uint32_t chunk) {
    return row * 4 + (chunk ^ (row / 2 % 4));
}
template <> __device__ uint32_t place<float>(uint32_t row, uint32_t chunk) {
    return row * 8 + (chunk ^ (row % 4 * 2));
}

// DEPTH columns of some rows of a matrix, in shared memory.
template <typename T, uint32_t ROWS> struct Panel {
    static constexpr uint32_t CHUNKS = DEPTH * sizeof(T) / 16;
    uint4 chunks[ROWS * CHUNKS];

    // Starts to copy them, from row `row` and column `col` on; 0 where there are none.
    __device__ void copy(const T *matrix, uint32_t row, uint32_t rows, uint32_t col, uint32_t cols) {
#pragma unroll
        for (uint32_t i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            const uint32_t chunk_row = row + i / CHUNKS, chunk_col = col + i % CHUNKS * (16 / sizeof(T));
            const bool inside = chunk_row < rows && chunk_col < cols;
            const T *from = inside ? matrix + size_t(chunk_row) * cols + chunk_col : matrix;
            copy_async(&chunks[place<T>(i / CHUNKS, i % CHUNKS)], from, inside ? 16 : 0);
        }
    }
};

// 16 rows and columns as mma takes a.
__device__ void load_a(uint32_t (&a)[1][4], const Panel<bf16, ROWS> &x, uint32_t row, uint32_t col,
                       const Clip &clip) {
    const uint32_t lane = threadIdx.x % 32;
    load_tiles(a[0], &x.chunks[place<bf16>(row + lane % 16, col / 8 + lane / 16)]);
    if (!clip.clips_input()) return;
#pragma unroll
    for (int i = 0; i < 4; i++) a[0][i] = clamp_pair(a[0][i], clip);
}

// The same of f32 as the sum of three bf16, its bits from high to low: their products with bf16 are exact.
__device__ void load_a(uint32_t (&a)[3][4], const Panel<float, ROWS> &x, uint32_t row, uint32_t col,
                       const Clip &clip) {
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t pair_row = row + lane / 4 + i % 2 * 8, pair_col = col + lane % 4 * 2 + i / 2 * 8;
        const uint4 *chunk = &x.chunks[place<float>(pair_row, pair_col / 4)];
        float2 rest = reinterpret_cast<const float2 *>(chunk)[pair_col / 2 % 2];
        if (clip.clips_input()) {
            rest.x = clamp(rest.x, clip.input_min, clip.input_max);
            rest.y = clamp(rest.y, clip.input_min, clip.input_max);
        }
#pragma unroll
        for (int part = 0; part < 3; part++) {
            const uint32_t x = __float_as_uint(rest.x), y = __float_as_uint(rest.y);
            a[part][i] = __byte_perm(x, y, 0x7632);
            rest.x -= __uint_as_float(x & 0xffff0000);
            rest.y -= __uint_as_float(y & 0xffff0000);
        }
    }
}

__device__ void add(float (&sums)[4], const uint32_t (&a)[1][4], const uint32_t (&b)[2]) {
    mma(sums, a[0], b);
}

// Tensor cores cut off what they add to a large sum, where an f32 addition rounds.
__device__ void add(float (&sums)[4], const uint32_t (&a)[3][4], const uint32_t (&b)[2]) {
    float step[4] = {};
#pragma unroll
    for (int part = 2; part >= 0; part--) mma(step, a[part], b);
#pragma unroll
    for (int i = 0; i < 4; i++) sums[i] += step[i];
}

// What is multiplied at once.
template <typename T, int TILES> struct Stage {
    static constexpr uint32_t COLS = 2 * TILES * 8;
    Panel<T, ROWS> x;
    Panel<bf16, COLS> weights;

    // Adds to `sums` what it gives for this warp's outputs.
    __device__ void multiply(float (&sums)[2][TILES][4], const Clip &clip) const {
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const uint32_t row = warp / 2 * 32, col = warp % 2 * (COLS / 2);
#pragma unroll
        for (uint32_t depth = 0; depth < DEPTH; depth += 16) {
            uint32_t b[TILES / 2][4];
#pragma unroll
            for (int j = 0; j < TILES / 2; j++) {
                const uint32_t weight_row = col + j * 16 + lane / 16 * 8 + lane % 8;
                load_tiles(b[j], &weights.chunks[place<bf16>(weight_row, depth / 8 + lane / 8 % 2)]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t a[sizeof(T) == 4 ? 3 : 1][4];
                load_a(a, x, row + i * 16, depth, clip);
#pragma unroll
                for (int j = 0; j < TILES; j++)
                    add(sums[i][j], a, {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
            }
        }
    }
};

template <typename T, int TILES, int STAGES>
__device__ void many_rows(const Product<T> &product, const bf16 *weights) {
    using Stage = Stage<T, TILES>;
    extern __shared__ __align__(128) uint8_t shared[];
    Stage *stages = reinterpret_cast<Stage *>(shared);
    const uint32_t row = blockIdx.x * ROWS, col = blockIdx.y * Stage::COLS;
    const uint32_t steps = (product.cols + DEPTH - 1) / DEPTH;
    const auto start = [&](uint32_t step) {
        if (step < steps) {
            Stage &stage = stages[step % STAGES];
            stage.x.copy(product.x, row, product.rows, step * DEPTH, product.cols);
            stage.weights.copy(weights, col, product.out_cols, step * DEPTH, product.cols);
        }
        end_copies();
    };
#pragma unroll
    for (uint32_t step = 0; step < STAGES - 1; step++) start(step);
    float sums[2][TILES][4] = {};
    for (uint32_t step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        // All have this stage's copies, and are done with the stage that is filled next.
        __syncthreads();
        start(step + STAGES - 1);
        stages[step % STAGES].multiply(sums, product.clip);
    }
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first_row = row + warp / 2 * 32 + lane / 4;
    const uint32_t first_col = col + warp % 2 * (Stage::COLS / 2) + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                product.write(first_row + i * 16 + k / 2 * 8, first_col + j * 8 + k % 2, sums[i][j][k]);
}

// Without them: any dtype and width. A block makes 64 × 64 outputs, a thread 4 × 4 of them.
constexpr uint32_t PLAIN_BLOCK = 64, PLAIN_DEPTH = 16;

// PLAIN_DEPTH columns of some rows of a matrix, transposed; with room for four behind each row, so that the
// writes of a warp are to different banks.
struct PlainPanel {
    float values[PLAIN_DEPTH][PLAIN_BLOCK + 4];

    template <typename T>
    __device__ void load(const T *matrix, uint32_t row, uint32_t rows, uint32_t col, uint32_t cols, float min,
                         float max) {
#pragma unroll
        for (uint32_t i = 0; i < PLAIN_BLOCK * PLAIN_DEPTH / THREADS; i++) {
            const uint32_t panel_row = threadIdx.x / 8 + i / 2 * 32, panel_col = threadIdx.x % 8 + i % 2 * 8;
            const bool inside = row + panel_row < rows && col + panel_col < cols;
            const size_t index = size_t(row + panel_row) * cols + col + panel_col;
            values[panel_col][panel_row] = inside ? clamp(to_f32(matrix[index]), min, max) : 0.0f;
        }
    }

    __device__ float4 four(uint32_t col, uint32_t row) const {
        return *reinterpret_cast<const float4 *>(&values[col][row]);
    }
};

template <typename T, typename W>
__device__ void many_rows_plain(const Product<T> &product, const W *weights) {
    __shared__ PlainPanel x_panel, weight_panel;
    const uint32_t row = blockIdx.x * PLAIN_BLOCK, col = blockIdx.y * PLAIN_BLOCK;
    const uint32_t thread_row = threadIdx.x / 16 * 4, thread_col = threadIdx.x % 16 * 4;
    const Clip &clip = product.clip;
    float sums[4][4] = {};
    for (uint32_t depth = 0; depth < product.cols; depth += PLAIN_DEPTH) {
        x_panel.load(product.x, row, product.rows, depth, product.cols, clip.input_min, clip.input_max);
        weight_panel.load(weights, col, product.out_cols, depth, product.cols, -INFINITY, INFINITY);
        __syncthreads();
#pragma unroll 4
        for (uint32_t k = 0; k < PLAIN_DEPTH; k++) {
            const float4 x = x_panel.four(k, thread_row), w = weight_panel.four(k, thread_col);
            const float a[4] = {x.x, x.y, x.z, x.w}, b[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (int i = 0; i < 16; i++) sums[i / 4][i % 4] = fmaf(a[i / 4], b[i % 4], sums[i / 4][i % 4]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        product.write(row + thread_row + i / 4, col + thread_col + i % 4, sums[i / 4][i % 4]);
}

#define PRODUCT(X, W)                                                                                        \
    const X *x, const W *weights, X *out, uint32_t rows, uint32_t cols, uint32_t out_cols, float input_min,  \
        float input_max, float output_min, float output_max
#define PRODUCT_OF                                                                                           \
    {x, out, rows, cols, out_cols, {input_min, input_max, output_min, output_max}}

extern "C" __global__ void __launch_bounds__(THREADS, 2) many_rows_bf16(PRODUCT(bf16, bf16)) {
    many_rows<bf16, 8, 4>(PRODUCT_OF, weights);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) many_rows_f32(PRODUCT(float, bf16)) {
    many_rows<float, 4, 3>(PRODUCT_OF, weights);
}

#define PLAIN(X, X_NAME, W, W_NAME)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) many_rows_##X_NAME##_##W_NAME(PRODUCT(X, W)) {     \
        many_rows_plain<X, W>(PRODUCT_OF, weights);                                                          \
    }
PLAIN(float, f32, float, f32)
PLAIN(float, f32, bf16, bf16)
PLAIN(float, f32, half, f16)
PLAIN(bf16, bf16, float, f32)
PLAIN(bf16, bf16, bf16, bf16)
PLAIN(bf16, bf16, half, f16)
