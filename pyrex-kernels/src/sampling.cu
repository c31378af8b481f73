// Chooses a token for each row of logits in three launches, whatever the rows ask for:
//
// survey  many blocks a row: the greatest logit of each group of 32 tokens, and each chunk's mass if needed.
// choose  a block a row: the greatest; or a draw from at most `MOST` tokens; or which are left, if more are.
// race    many blocks a row: the draw from more.
//
// The k greatest logits lie in the k groups whose greatest are greatest: so little of a row is looked at
// again.
#include "sampling_few.cuh"

constexpr uint32_t CHUNK_LEN = 2048;
constexpr uint32_t CHUNK_THREADS = 256;
// Tokens of a chunk that one thread looks at.
constexpr uint32_t PER_THREAD = CHUNK_LEN / CHUNK_THREADS;
// A nucleus without top-k is looked for among so many tokens first, for it hardly ever has more.
constexpr uint32_t FIRST_TRY = 256;

// What may be drawn from in `race`.
struct Field {
    // Ranks from here on pass top-k.
    uint64_t least_rank;
    // Places from here on pass top-p.
    uint64_t least_place;
    Edge edge;
    float greatest;
    uint32_t is_open;
    uint32_t num_done;
    uint32_t reserved;
};

static_assert(sizeof(Field) == 40 && sizeof(Parameters) == 40, "as sampling.rs counts them");

// What a row leaves from one launch to the next; `scratch_len` in sampling.rs counts the same.
struct Scratch {
    uint32_t num_groups, num_chunks;
    Field *field;
    double *masses, *times;
    uint32_t *chunk_keys, *group_keys, *token_ids;

    __device__ Scratch(uint64_t *scratch, uint32_t row, uint32_t len)
        : num_groups((len + GROUP_LEN - 1) / GROUP_LEN), num_chunks((len + CHUNK_LEN - 1) / CHUNK_LEN) {
        const size_t num_words = sizeof(Field) / 8 + 3 * size_t(num_chunks) + (num_groups + 1) / 2;
        field = reinterpret_cast<Field *>(scratch + row * num_words);
        masses = reinterpret_cast<double *>(field + 1);
        times = masses + num_chunks;
        chunk_keys = reinterpret_cast<uint32_t *>(times + num_chunks);
        token_ids = chunk_keys + num_chunks;
        group_keys = token_ids + num_chunks;
    }
};

// The mass of the chunk whose keys the block holds, relative to the greatest of them.
template <typename T>
__device__ void weigh_chunk(const uint32_t (&keys)[PER_THREAD], float temperature, uint32_t chunk,
                            const Scratch &scratch) {
    __shared__ uint32_t greatest_keys[WARP];
    __shared__ double masses[WARP];
    uint32_t greatest = 0;
    for (uint32_t key : keys) greatest = max(greatest, key);
    greatest = reduce_block(greatest, 0u, Greatest(), greatest_keys);
    const Weights weights(temperature, Logits<T>::value(greatest));
    double mass = 0.0;
    for (uint32_t key : keys) mass += key == 0 ? 0.0 : weights(Logits<T>::value(key));
    mass = reduce_block(mass, 0.0, Sum(), masses);
    if (threadIdx.x == 0) {
        scratch.masses[chunk] = mass;
        scratch.chunk_keys[chunk] = greatest;
    }
}

template <typename T>
__device__ void survey(const T *all, const Parameters *parameters, uint64_t *memory, uint32_t len,
                       float soft_cap) {
    const uint32_t row = blockIdx.y, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Logits<T> logits(all, row, len, soft_cap);
    const Scratch scratch(memory, row, len);
    const Parameters wanted = parameters[row];
    const bool weighs = wanted.temperature != 0.0f && wanted.top_p < 1.0 && !wanted.is_narrow(MOST);
    for (uint32_t chunk = blockIdx.x; chunk < scratch.num_chunks; chunk += gridDim.x) {
        const uint32_t first_group = chunk * (CHUNK_LEN / GROUP_LEN) + warp * PER_THREAD;
        uint32_t keys[PER_THREAD], own = 0;
#pragma unroll
        for (uint32_t j = 0; j < PER_THREAD; j++) {
            const uint32_t i = (first_group + j) * GROUP_LEN + lane;
            keys[j] = i < len ? logits.key(i) : 0;
        }
#pragma unroll
        for (uint32_t j = 0; j < PER_THREAD; j++) {
            const uint32_t greatest = __reduce_max_sync(ALL_LANES, keys[j]);
            if (lane == j) own = greatest;
        }
        if (lane < PER_THREAD && first_group + lane < scratch.num_groups) {
            scratch.group_keys[first_group + lane] = own;
        }
        if (weighs) weigh_chunk<T>(keys, wanted.temperature, chunk, scratch);
    }
}

// The lowest id of the greatest logit, which is in this group.
template <typename T>
__device__ uint32_t first_of_group(const Logits<T> &logits, uint32_t group, uint32_t key) {
    const uint32_t id = group * GROUP_LEN + threadIdx.x % WARP;
    const bool equal = id < logits.len && logits.key(id) == key;
    return group * GROUP_LEN + __ffs(__ballot_sync(ALL_LANES, equal)) - 1;
}

// The mass of all tokens: chunk by chunk, relative to the greatest of all.
template <typename T>
__device__ double total_mass(const Scratch &scratch, const Weights &weights, Workspace &shared) {
    double mass = 0.0;
    for (uint32_t chunk = threadIdx.x; chunk < scratch.num_chunks; chunk += blockDim.x) {
        const uint32_t key = scratch.chunk_keys[chunk];
        if (key != 0) mass += scratch.masses[chunk] * weights(Logits<T>::value(key));
    }
    return reduce_block(mass, 0.0, Sum(), shared.masses);
}

// The keys that weigh what `key` weighs: usually that one alone, but at a high temperature different logits
// round to the same weight. Steps away from it grow while they stay on the edge, and halve once one has left
// it.
template <typename T>
__device__ Edge edge_at(uint32_t key, uint32_t greatest_key, const Weights &weights) {
    const double weight = weights(Logits<T>::value(key));
    uint32_t ends[2] = {key, key};
#pragma unroll 1
    for (uint32_t side = 0; side < 2; side++) {
        // How far the last one is that is on the edge, and the first that is not.
        uint32_t on = 0, off = side == 0 ? key - Logits<T>::MINUS_INFINITY : greatest_key - key + 1, step = 1;
        while (off - on > 1) {
            step = min(step, (off - on) / 2);
            const uint32_t next = side == 0 ? key - on - step : key + on + step;
            if (weights(Logits<T>::value(next)) == weight) {
                on += step;
                step *= 2;
            } else {
                off = on + step;
            }
        }
        if (side == 0) ends[0] = key - on;
        else ends[1] = key + on;
    }
    return {ends[0], ends[1]};
}

// How many keys are in `(key, edge.high_key]`, of those that top-k leaves.
template <typename T>
__device__ uint64_t num_between(uint32_t key, const Nucleus<T> &nucleus, const Edge &edge,
                                Workspace &shared) {
    if (edge.high_key == key) return 0;
    uint64_t num = 0;
    for (uint32_t i = threadIdx.x; i < nucleus.len; i += blockDim.x) {
        const uint64_t other = nucleus.rank(i);
        num += other > key && other <= edge.high_key;
    }
    return reduce_block(num, uint64_t(0), Sum(), shared.ranks);
}

// Which tokens pass top-p, if they pass what `field` says already.
template <typename T>
__device__ void keep_nucleus(const Logits<T> &logits, const Scratch &scratch, uint32_t greatest_key,
                             const Parameters &wanted, Field &field, Workspace &shared) {
    const Order order(logits.len);
    const Weights weights(wanted.temperature, field.greatest);
    const double scale = scalbn(1.0, 61 - ilogb(total_mass<T>(scratch, weights, shared)));
    const Nucleus<T> nucleus = {logits,           weights, logits.len,   order,
                                field.least_rank, scale,   wanted.top_p, Logits<T>::MINUS_INFINITY,
                                greatest_key};
    const Cut cut = cutoff(nucleus, shared.cutoff);
    const uint32_t key = uint32_t(cut.least);
    field.edge = edge_at<T>(key, greatest_key, weights);
    const uint64_t each = nucleus.scaled(key);
    const uint64_t num = num_between(key, nucleus, field.edge, shared) + (cut.needed + each - 1) / each;
    const FirstOnEdge<T> first = {logits, field.edge,       logits.len,      num,
                                  order,  field.least_rank, order.lowest(1), order.highest(1)};
    field.least_place = cutoff(first, shared.cutoff).least;
}

// What may be drawn from, where that may be more than `MOST` tokens.
template <typename T>
__device__ Field open_field(const Logits<T> &logits, const Scratch &scratch, uint32_t greatest_key,
                            const Parameters &wanted, Workspace &shared) {
    Field field = {1, 1, {0, 0}, logits.value(greatest_key), 1, 0, 0};
    if (wanted.top_k != 0) {
        const Order order(logits.len);
        const uint64_t high = order.highest(greatest_key);
        const GreatestLogits<T> tokens = {logits, nullptr, logits.len, wanted.top_k, order, 1, high};
        field.least_rank = cutoff(tokens, shared.cutoff).least;
    }
    if (wanted.top_p < 1.0) keep_nucleus(logits, scratch, greatest_key, wanted, field, shared);
    return field;
}

// Draws from as many tokens as top-k leaves, at most `MOST`, or from a nucleus if `FIRST_TRY` tokens hold it;
// returns `NO_TOKEN` if they do not.
template <typename T>
__device__ uint32_t draw_from_few(const Logits<T> &logits, const Scratch &scratch, uint64_t greatest_group,
                                  const Parameters &wanted, uint32_t position, Workspace &shared) {
    const Order order(scratch.num_groups);
    const Weights weights(wanted.temperature, logits.value(order.key(greatest_group)));
    const bool is_narrow = wanted.is_narrow(MOST);
    const double mass = is_narrow ? -1.0 : total_mass<T>(scratch, weights, shared);
    const uint32_t k = is_narrow ? wanted.top_k : FIRST_TRY;
    const GreatestGroups groups = {scratch.group_keys, scratch.num_groups, k,
                                   min(k, MOST - k),   order,              1, greatest_group};
    uint32_t num = collect(logits, groups, weights, shared);
    if (wanted.top_p < 1.0) {
        sort(num, shared);
        const uint32_t kept = keep_top_p(num, wanted.top_p, mass, shared);
        // Beyond the last one may be others of its weight, with lower ids.
        const bool ends_here = kept != 0 && shared.weights[num - 1] < shared.weights[kept - 1];
        if (!is_narrow && num == FIRST_TRY && !ends_here) return NO_TOKEN;
        num = kept != 0 ? kept : num;
    }
    return race_few(num, wanted, position, shared);
}

template <typename T>
__device__ void choose(const T *all, const Parameters *parameters, const uint32_t *positions,
                       uint64_t *memory, uint32_t *ids, uint32_t len, float soft_cap) {
    __shared__ Workspace shared;
    const uint32_t row = blockIdx.x;
    const Logits<T> logits(all, row, len, soft_cap);
    const Scratch scratch(memory, row, len);
    const Order group_order(scratch.num_groups);
    Parameters wanted = parameters[row];
    if (wanted.top_k >= len && wanted.top_k > MOST) wanted.top_k = 0;

    uint64_t greatest_group = 0;
    for (uint32_t i = threadIdx.x; i < scratch.num_groups; i += blockDim.x) {
        greatest_group = max(greatest_group, group_order.rank(scratch.group_keys[i], i));
    }
    greatest_group = reduce_block(greatest_group, uint64_t(0), Greatest(), shared.ranks);
    const uint32_t key = group_order.key(greatest_group);

    uint32_t token_id = NO_TOKEN;
    Field field = {};
    // Beside an infinite logit nothing else has any weight.
    if (key != 0 && (wanted.temperature == 0.0f || logits.value(key) == INFINITY)) {
        token_id = first_of_group(logits, group_order.index(greatest_group), key);
    } else if (key != 0) {
        const bool may_be_few = wanted.top_k == 0 ? wanted.top_p < 1.0 : wanted.is_narrow(MOST);
        if (may_be_few) {
            token_id = draw_from_few(logits, scratch, greatest_group, wanted, positions[row], shared);
        }
        if (token_id == NO_TOKEN) field = open_field(logits, scratch, key, wanted, shared);
    }
    if (threadIdx.x != 0) return;
    *scratch.field = field;
    if (field.is_open == 0) ids[row] = token_id;
}

// The best of a block's tokens that are in the field.
template <typename T>
__device__ Runner race_part(const Logits<T> &logits, const Field &field, const Parameters &wanted,
                            uint32_t position) {
    const Order order(logits.len);
    const Weights weights(wanted.temperature, field.greatest);
    Runner winner;
    for (uint32_t start = blockIdx.x * CHUNK_LEN; start < logits.len; start += gridDim.x * CHUNK_LEN) {
        for (uint32_t j = 0; j < PER_THREAD; j++) {
            const uint32_t id = start + j * CHUNK_THREADS + threadIdx.x;
            const uint32_t key = id < logits.len ? logits.key(id) : 0;
            if (key == 0 || order.rank(key, id) < field.least_rank) continue;
            if (field.edge.place(key, id, order) < field.least_place) continue;
            const double weight = weights(logits.value(key));
            if (weight < wanted.min_p) continue;
            winner = First()(winner, run(wanted, position, id, weight));
        }
    }
    return winner;
}

template <typename T>
__device__ void race(const T *all, const Parameters *parameters, const uint32_t *positions,
                     uint64_t *memory, uint32_t *ids, uint32_t len, float soft_cap) {
    __shared__ Runner runners[WARP];
    __shared__ bool is_last;
    const uint32_t row = blockIdx.y;
    const Scratch scratch(memory, row, len);
    const Field field = *scratch.field;
    if (field.is_open == 0) return;
    const Logits<T> logits(all, row, len, soft_cap);
    Runner winner = race_part(logits, field, parameters[row], positions[row]);
    winner = reduce_block(winner, Runner(), First(), runners);
    if (threadIdx.x == 0) {
        scratch.times[blockIdx.x] = winner.time;
        scratch.token_ids[blockIdx.x] = winner.token_id;
        __threadfence();
        is_last = atomicAdd(&scratch.field->num_done, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) return;
    // All others have written theirs: who counted them is behind a fence, as they were.
    __threadfence();
    winner = Runner();
    for (uint32_t part = threadIdx.x; part < gridDim.x; part += blockDim.x) {
        Runner other;
        other.time = __ldcg(scratch.times + part);
        other.token_id = __ldcg(scratch.token_ids + part);
        winner = First()(winner, other);
    }
    winner = reduce_block(winner, Runner(), First(), runners);
    if (threadIdx.x == 0) ids[row] = winner.token_id;
}

#define SAMPLING_KERNELS(T)                                                                                  \
    extern "C" __global__ void __launch_bounds__(CHUNK_THREADS)                                              \
        survey_##T(const T *logits, const Parameters *parameters, uint64_t *scratch, uint32_t len,           \
                   float soft_cap) {                                                                         \
        survey(logits, parameters, scratch, len, soft_cap);                                                  \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(CUTOFF_THREADS)                                             \
        choose_##T(const T *logits, const Parameters *parameters, const uint32_t *positions,                 \
                   uint64_t *scratch, uint32_t *ids, uint32_t len, float soft_cap) {                         \
        choose(logits, parameters, positions, scratch, ids, len, soft_cap);                                  \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(CHUNK_THREADS)                                              \
        race_##T(const T *logits, const Parameters *parameters, const uint32_t *positions,                   \
                 uint64_t *scratch, uint32_t *ids, uint32_t len, float soft_cap) {                           \
        race(logits, parameters, positions, scratch, ids, len, soft_cap);                                    \
    }

SAMPLING_KERNELS(f32)
SAMPLING_KERNELS(bf16)
