// x · Wᵀ for up to 8 rows of x, bound by reading the weights: each is read once.
#include "clip.cuh"
#include "tensor.cuh"

// One of up to three matrices over the same x.
struct Matrix {
    const void *weight;
    void *out;
    uint32_t out_cols;
};

// The matrix of this block, and its first output: blocks go through the matrices one after another.
__device__ Matrix matrix_of_block(const Matrix (&matrices)[3], uint32_t outputs_of_block, uint32_t &first) {
    uint32_t block = blockIdx.x;
    int i = 0;
    for (; i < 2; i++) {
        const uint32_t blocks = (matrices[i].out_cols + outputs_of_block - 1) / outputs_of_block;
        if (block < blocks) break;
        block -= blocks;
    }
    first = block * outputs_of_block;
    return i == 0 ? matrices[0] : i == 1 ? matrices[1] : matrices[2];
}

// gelu_tanh(gate) · up, rounded where the reference stores.
template <typename T> __device__ T gated(float gate, float up) {
    return from_f32<T>(rounded<T>(gelu_tanh(rounded<T>(gate))) * rounded<T>(up));
}

// What becomes of a product before it is written.
template <typename T> struct Finish {
    float cap;           // of a soft cap, if it is not 0
    const T *up;         // what a gate is for, if it is not null
    uint32_t up_stride; // from one row of that to the next

    __device__ T operator()(float x, uint32_t row, uint32_t out_col) const {
        if (up != nullptr) return gated<T>(x, to_f32(up[size_t(row) * up_stride + out_col]));
        if (cap != 0.0f) return from_f32<T>(rounded<T>(tanhf(rounded<T>(rounded<T>(x) / cap))) * cap);
        return from_f32<T>(x);
    }
};

// 16 bytes that are read once: they need no place in the caches.
__device__ uint4 load_once(const void *global) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

// On tensor cores: bf16 alone, rows of a multiple of 16 bytes.
//
// What mma calls a is x, its upper 8 rows 0, and b are 8 rows of weights, a tile. Columns may come in any
// order: a lane loads 8 neighbours, of the weights and of x alike, and feeds them to two products. A row of x
// is summed by itself, in an order that follows from the shape of the weights.
constexpr uint32_t TILE = 8;
constexpr int BATCH = 8;      // loads of weights that a lane waits for at once
constexpr uint32_t LOAD = 32; // columns that a warp's load takes of each row
constexpr int CHAINS = 4;     // sums that do not wait for each other

// Adds to `sums` what a batch of columns gives, of which this lane loads those from `col` on. `x` and
// `weights` are its rows.
template <bool WHOLE, int TILES>
__device__ void multiply(float (&sums)[TILES][CHAINS / TILES][4], const bf16 *x,
                         const bf16 *const (&weights)[TILES], uint32_t col, uint32_t cols) {
    constexpr int LOADS = BATCH / TILES;
    uint4 a[LOADS] = {}, b[TILES][LOADS] = {};
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        if (!WHOLE && col + i * LOAD >= cols) break;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) b[tile][i] = load_once(weights[tile] + col + i * LOAD);
        a[i] = *reinterpret_cast<const uint4 *>(x + col + i * LOAD);
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            float(&sum)[4] = sums[tile][i % (CHAINS / TILES)];
            mma(sum, {a[i].x, 0, a[i].y, 0}, {b[tile][i].x, b[tile][i].y});
            mma(sum, {a[i].z, 0, a[i].w, 0}, {b[tile][i].z, b[tile][i].w});
        }
    }
}

// Leaves in shared memory what each warp's share of the columns gives. `weights` are the rows of this lane,
// one of each tile.
template <int TILES>
__device__ void multiply_tiles(const bf16 *x, const bf16 *const (&weights)[TILES], uint32_t rows,
                               uint32_t cols) {
    constexpr uint32_t COLS = BATCH / TILES * LOAD;
    extern __shared__ float partial[];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    // Where x has no row, another is multiplied in vain.
    const bf16 *x_row = x + size_t(min(lane / 4, rows - 1)) * cols;
    float sums[TILES][CHAINS / TILES][4] = {};
    for (uint32_t first = warp * COLS; first < cols; first += warps * COLS) {
        const uint32_t col = first + lane % 4 * 8;
        if (first + COLS <= cols)
            multiply<true>(sums, x_row, weights, col, cols);
        else
            multiply<false>(sums, x_row, weights, col, cols);
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        float2 sum = {0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < CHAINS / TILES; i++) {
            sum.x += sums[tile][i][0];
            sum.y += sums[tile][i][1];
        }
        reinterpret_cast<float2 *>(partial + (warp * TILES + tile) * 64)[lane] = sum;
    }
    __syncthreads();
}

// The product of row i % 64 / 8 of x and row i % 8 of tile i / 64.
template <int TILES> __device__ float product(uint32_t i) {
    extern __shared__ float partial[];
    float sum = 0.0f;
    for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) sum += partial[warp * TILES * 64 + i];
    return sum;
}

template <int TILES>
__device__ void few_rows(const bf16 *x, const Matrix (&matrices)[3], uint32_t rows, uint32_t cols,
                         const Finish<bf16> &finish) {
    uint32_t first;
    const Matrix matrix = matrix_of_block(matrices, TILES * TILE, first);
    const bf16 *weights[TILES];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        const uint32_t out_col = min(first + tile * TILE + threadIdx.x % 32 / 4, matrix.out_cols - 1);
        weights[tile] = static_cast<const bf16 *>(matrix.weight) + size_t(out_col) * cols;
    }
    multiply_tiles(x, weights, rows, cols);
    for (uint32_t i = threadIdx.x; i < TILES * 64; i += blockDim.x) {
        const uint32_t row = i % 64 / 8, out_col = first + i / 64 * TILE + i % 8;
        if (row >= rows || out_col >= matrix.out_cols) continue;
        static_cast<bf16 *>(matrix.out)[size_t(row) * matrix.out_cols + out_col] =
            finish(product<TILES>(i), row, out_col);
    }
}

__device__ void few_rows_gated_tiles(const bf16 *x, const bf16 *gate, const bf16 *up, bf16 *out,
                                     uint32_t out_cols, uint32_t rows, uint32_t cols) {
    const uint32_t first = blockIdx.x * TILE;
    const size_t row = min(first + threadIdx.x % 32 / 4, out_cols - 1);
    const bf16 *const weights[2] = {gate + row * cols, up + row * cols};
    multiply_tiles(x, weights, rows, cols);
    for (uint32_t i = threadIdx.x; i < 64; i += blockDim.x) {
        const uint32_t row = i / 8, out_col = first + i % 8;
        if (row >= rows || out_col >= out_cols) continue;
        out[size_t(row) * out_cols + out_col] = gated<bf16>(product<2>(i), product<2>(64 + i));
    }
}

// Without them: any dtype, any width, clamped. A warp takes an output and one row of x after another.

// COUNT neighbours, widened.
template <int COUNT, typename T> __device__ void load(float (&values)[COUNT], const T *from) {
    struct alignas(COUNT == 1 ? sizeof(T) : 16) Neighbours {
        T values[COUNT];
    };
    const Neighbours neighbours = *reinterpret_cast<const Neighbours *>(from);
#pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = to_f32(neighbours.values[i]);
}

template <int COUNT, typename X, typename W>
__device__ float dot(const X *x, const W *weights, uint32_t cols, const Clip &clip) {
    float sum = 0.0f;
    for (uint32_t col = threadIdx.x % 32 * COUNT; col < cols; col += 32 * COUNT) {
        float a[COUNT], b[COUNT];
        load(a, x + col);
        load(b, weights + col);
#pragma unroll
        for (int i = 0; i < COUNT; i++) sum = fmaf(clamp(a[i], clip.input_min, clip.input_max), b[i], sum);
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    return sum;
}

// A row of x times a row of weights, clamped; `aligned` if all rows begin at multiples of 16 bytes.
template <typename X, typename W>
__device__ float plain_product(const X *x, const W *weights, uint32_t cols, uint32_t aligned,
                               const Clip &clip) {
    const float sum = aligned ? dot<8>(x, weights, cols, clip) : dot<1>(x, weights, cols, clip);
    return clamp(sum, clip.output_min, clip.output_max);
}

template <typename X, typename W>
__device__ void few_rows_plain(const X *x, const Matrix (&matrices)[3], uint32_t rows, uint32_t cols,
                               const Finish<X> &finish, uint32_t aligned, const Clip &clip) {
    const uint32_t warps = blockDim.x / 32;
    uint32_t first;
    const Matrix matrix = matrix_of_block(matrices, warps, first);
    const uint32_t out_col = first + threadIdx.x / 32;
    if (out_col >= matrix.out_cols) return;
    const W *weights = static_cast<const W *>(matrix.weight) + size_t(out_col) * cols;
    for (uint32_t row = 0; row < rows; row++) {
        const float sum = plain_product(x + size_t(row) * cols, weights, cols, aligned, clip);
        if (threadIdx.x % 32 == 0)
            static_cast<X *>(matrix.out)[size_t(row) * matrix.out_cols + out_col] = finish(sum, row, out_col);
    }
}

template <typename X, typename W>
__device__ void few_rows_gated_plain(const X *x, const W *gate, const W *up, X *out, uint32_t out_cols,
                                     uint32_t rows, uint32_t cols, uint32_t aligned, const Clip &gate_clip,
                                     const Clip &up_clip) {
    const uint32_t out_col = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (out_col >= out_cols) return;
    const size_t offset = size_t(out_col) * cols;
    for (uint32_t row = 0; row < rows; row++) {
        const X *values = x + size_t(row) * cols;
        const float gate_sum = plain_product(values, gate + offset, cols, aligned, gate_clip);
        const float up_sum = plain_product(values, up + offset, cols, aligned, up_clip);
        if (threadIdx.x % 32 == 0) out[size_t(row) * out_cols + out_col] = gated<X>(gate_sum, up_sum);
    }
}

#define PRODUCTS(X)                                                                                          \
    const X *x, const void *w0, void *out0, uint32_t cols0, const void *w1, void *out1, uint32_t cols1,      \
        const void *w2, void *out2, uint32_t cols2, uint32_t rows, uint32_t cols, float cap, const X *up,    \
        uint32_t up_stride
#define MATRICES                                                                                             \
    { {w0, out0, cols0}, {w1, out1, cols1}, {w2, out2, cols2} }
#define GATED(X, W)                                                                                          \
    const X *x, const W *gate, const W *up, X *out, uint32_t out_cols, uint32_t rows, uint32_t cols
#define CLIP(name)                                                                                           \
    float name##_input_min, float name##_input_max, float name##_output_min, float name##_output_max
#define CLIP_OF(name)                                                                                        \
    { name##_input_min, name##_input_max, name##_output_min, name##_output_max }

#define FEW_ROWS(TILES)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256, TILES + 1) few_rows_##TILES(PRODUCTS(bf16)) {          \
        few_rows<TILES>(x, MATRICES, rows, cols, {cap, up, up_stride});                                      \
    }
FEW_ROWS(1)
FEW_ROWS(2)

extern "C" __global__ void __launch_bounds__(256, 3) few_rows_gated(GATED(bf16, bf16)) {
    few_rows_gated_tiles(x, gate, up, out, out_cols, rows, cols);
}

#define PLAIN(X, X_NAME, W, W_NAME)                                                                          \
    extern "C" __global__ void few_rows_##X_NAME##_##W_NAME(PRODUCTS(X), uint32_t aligned, CLIP(clip)) {     \
        few_rows_plain<X, W>(x, MATRICES, rows, cols, {cap, up, up_stride}, aligned, CLIP_OF(clip));         \
    }                                                                                                        \
    extern "C" __global__ void few_rows_gated_##X_NAME##_##W_NAME(GATED(X, W), uint32_t aligned, CLIP(gate), \
                                                                  CLIP(up)) {                                \
        few_rows_gated_plain<X, W>(x, gate, up, out, out_cols, rows, cols, aligned, CLIP_OF(gate),           \
                                   CLIP_OF(up));                                                             \
    }
PLAIN(float, f32, float, f32)
PLAIN(float, f32, bf16, bf16)
PLAIN(float, f32, half, f16)
PLAIN(bf16, bf16, float, f32)
PLAIN(bf16, bf16, bf16, bf16)
PLAIN(bf16, bf16, half, f16)
