// Rows looked up, moved and put together. A row that is not in the table becomes NaN and reads nothing; one
// that is not in the target is not written.
#include "rows.cuh"

constexpr uint32_t MAX_THREADS = 1024;

// r(r(row) factor) of a table whose dtype is that of its file. The table may lie in the host's memory: every
// byte of a row is read once, 16 by a thread.
template <typename W> struct Table {
    const W *rows;
    uint32_t num_rows;
    float factor;
};

template <bool ALIGNED, typename T, typename W>
__device__ __forceinline__ void gather_rows(
    const Table<W> &table, const uint32_t *ids, T *out, uint32_t count, uint32_t width) {
    constexpr uint32_t N = 16 / sizeof(W);
    if (own_row() >= count) return;
    const uint32_t id = ids[own_row()];
    const bool known = id < table.num_rows;
    Span spans[SPANS], known_spans[SPANS];
    row_spans<N>(spans, width);
    row_spans<N>(known_spans, known ? width : 0);
    float row[SPANS][N];
    load_spans<ALIGNED>(row, table.rows + size_t(known ? id : 0) * width, known_spans);
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
#pragma unroll
        for (uint32_t i = 0; i < N; i++) {
            row[k][i] = known ? rounded<T>(row[k][i]) * table.factor : NAN;
        }
    }
    store_spans<ALIGNED>(out + size_t(own_row()) * width, row, spans);
}

// The inputs of the layers from `first_layer` on, for each token: a part looked up by its id, a part from its
// context.
template <typename T, typename W> struct PerLayer {
    const T *context;
    const uint32_t *ids;
    Table<W> table;
    const float *weight;
    float eps, projection_scale;
    uint32_t num_layers, first_layer, layers;
    T *out;
};

template <bool ALIGNED, typename T, typename W>
__device__ __forceinline__ void per_layer_inputs(const PerLayer<T, W> &step, uint32_t count, uint32_t width) {
    __shared__ float partial[32];
    const bool exists = own_row() < count;
    const uint32_t token = own_row() / step.layers, layer = step.first_layer + own_row() % step.layers;
    const uint32_t id = exists ? step.ids[token] : 0;
    const bool known = id < step.table.num_rows / step.num_layers;
    const size_t table_row = size_t(id) * step.num_layers + layer;
    Span spans[SPANS], known_spans[SPANS];
    row_spans(spans, exists ? width : 0);
    row_spans(known_spans, exists && known ? width : 0);
    const size_t at = size_t(own_row()) * width;
    float context[SPANS][SPAN], by_token[SPANS][SPAN], weight[SPANS][SPAN];
    load_spans<ALIGNED>(by_token, step.table.rows + (known ? table_row : 0) * width, known_spans);
    load_spans<ALIGNED>(context, step.context + at, spans);
    load_weight<ALIGNED>(weight, step.weight, spans);
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) {
            context[k][i] = product_of<T>(context[k][i], step.projection_scale);
        }
    }
    normalize<T>(context, weight, step.eps, width, partial);
#pragma unroll
    for (uint32_t k = 0; k < SPANS; k++) {
#pragma unroll
        for (uint32_t i = 0; i < SPAN; i++) {
            const float token_part = product_of<T>(rounded<T>(by_token[k][i]), step.table.factor);
            const float sum = sum_of<T>(context[k][i], known ? token_part : NAN);
            context[k][i] = sum * 0.70710678f;
        }
    }
    store_spans<ALIGNED>(step.out + at, context, spans);
}

#define LOOKUPS(T, SUFFIX, W, TABLE)                                                               \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) gather_rows_##SUFFIX##_##TABLE(      \
        const W *table, uint32_t num_rows, float factor, const uint32_t *ids, T *out,              \
        uint32_t count, uint32_t width, uint32_t aligned) {                                        \
        const Table<W> rows = {table, num_rows, factor};                                           \
        BY_ALIGNMENT(aligned, gather_rows, rows, ids, out, count, width)                           \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) per_layer_inputs_##SUFFIX##_##TABLE( \
        const T *context, const uint32_t *ids, const W *table, uint32_t num_rows, float factor,    \
        const float *weight, float eps, float projection_scale, uint32_t num_layers,               \
        uint32_t first_layer, uint32_t layers, T *out, uint32_t count, uint32_t width,             \
        uint32_t aligned) {                                                                        \
        const PerLayer<T, W> step = {                                                              \
            context, ids, {table, num_rows, factor}, weight, eps, projection_scale,                \
            num_layers, first_layer, layers, out};                                                 \
        BY_ALIGNMENT(aligned, per_layer_inputs, step, count, width)                                \
    }

LOOKUPS(float, f32, float, f32)
LOOKUPS(float, f32, bf16, bf16)
LOOKUPS(float, f32, half, f16)
LOOKUPS(bf16, bf16, float, f32)
LOOKUPS(bf16, bf16, bf16, bf16)
LOOKUPS(bf16, bf16, half, f16)

// Rows of bits: which ones, `stride` apart in a list; without a list, one after another.
template <typename Unit> struct Rows {
    Unit *units;
    const uint32_t *list;
    uint32_t count;

    // The row that is number `i`.
    __device__ __forceinline__ uint32_t row(uint32_t i, uint32_t stride) const {
        return list ? list[size_t(i) * stride] : i;
    }
};

__device__ __forceinline__ void set_all_bits(uint16_t &unit) { unit = 0xffff; }
__device__ __forceinline__ void set_all_bits(uint32_t &unit) { unit = 0xffffffff; }
__device__ __forceinline__ void set_all_bits(uint4 &unit) {
    unit = {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
}

// target[to[i]] = source[from[i]] for rows of `width` units. With all bits set a number of any float type is
// NaN.
template <typename Unit>
__device__ __forceinline__ void move_rows(
    const Rows<const Unit> &source, const Rows<Unit> &target, uint32_t stride, uint32_t count,
    uint32_t width) {
    if (own_row() >= count) return;
    const uint32_t from = source.row(own_row(), stride), to = target.row(own_row(), stride);
    if (to >= target.count) return;
    const Unit *const read = source.units + size_t(from) * width;
    Unit *const written = target.units + size_t(to) * width;
    for (uint32_t first = threadIdx.x; first < width; first += SPANS * blockDim.x) {
        Unit units[SPANS];
#pragma unroll
        for (uint32_t k = 0; k < SPANS; k++) {
            const uint32_t at = first + k * blockDim.x;
            set_all_bits(units[k]);
            if (from < source.count && at < width) units[k] = read[at];
        }
#pragma unroll
        for (uint32_t k = 0; k < SPANS; k++) {
            const uint32_t at = first + k * blockDim.x;
            if (at < width) written[at] = units[k];
        }
    }
}

#define MOVE(UNIT, BYTES)                                                                              \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) move_rows_##BYTES(                       \
        const UNIT *source, const uint32_t *from, uint32_t source_rows, UNIT *target,                  \
        const uint32_t *to, uint32_t target_rows, uint32_t stride, uint32_t count, uint32_t width) {   \
        move_rows<UNIT>({source, from, source_rows}, {target, to, target_rows}, stride, count, width); \
    }

MOVE(uint16_t, 2)
MOVE(uint32_t, 4)
MOVE(uint4, 16)

// `pad` wherever an id is one of four.
extern "C" __global__ void mask_ids(
    const uint32_t *ids, uint32_t *out, uint32_t len, uint32_t pad, uint32_t a, uint32_t b, uint32_t c,
    uint32_t d) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    const uint32_t id = ids[i];
    out[i] = id == a || id == b || id == c || id == d ? pad : id;
}
