// From the tokens that one decode step chose to the inputs of the next, without the host.
#include <stdint.h>

constexpr uint32_t NOTHING = 0xffffffffu;

// Where a group of layers keeps keys and values: `[B, table_len]` blocks, and the slot that is written next.
struct Group {
    const uint32_t *block_tables;
    uint32_t *slot_mapping;
    uint32_t table_len;

    // The slot of `position`; nothing where the table does not reach.
    __device__ uint32_t slot(uint32_t row, uint32_t position, uint32_t block_size) const {
        const uint32_t idx = position / block_size;
        if (idx >= table_len) return NOTHING;
        const uint64_t block = block_tables[size_t(row) * table_len + idx];
        const uint64_t slot = block * block_size + position % block_size;
        return slot < NOTHING ? uint32_t(slot) : NOTHING;
    }
};

extern "C" __global__ void advance(const uint32_t *ids, const uint32_t *active, uint32_t *input_ids,
                                   uint32_t *positions, uint32_t *drawn_positions,
                                   const uint32_t *block_tables_0, uint32_t *slot_mapping_0,
                                   uint32_t table_len_0, const uint32_t *block_tables_1,
                                   uint32_t *slot_mapping_1, uint32_t table_len_1, uint32_t block_size,
                                   uint32_t num_rows) {
    const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= num_rows) return;
    const uint32_t id = ids[row];
    const bool goes_on = active[row] != 0 && id != NOTHING;
    const uint32_t position = positions[row] + 1;
    if (goes_on) {
        input_ids[row] = id;
        positions[row] = position;
        if (drawn_positions != nullptr) drawn_positions[row] = position + 1;
    }
    const Group groups[] = {{block_tables_0, slot_mapping_0, table_len_0},
                            {block_tables_1, slot_mapping_1, table_len_1}};
#pragma unroll
    for (const Group &group : groups) {
        if (group.slot_mapping == nullptr) continue;
        group.slot_mapping[row] = goes_on ? group.slot(row, position, block_size) : NOTHING;
    }
}
