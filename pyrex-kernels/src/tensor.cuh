// Tensor cores and what feeds them.
#pragma once
#include "common.cuh"

// sums += a · b of bf16: a is 16 × 16, b is 16 × 8. Of lane i with group = i / 4 and pair = 2 · (i % 4),
// - a[0], a[1] are rows group and group + 8 at columns pair, pair + 1; a[2], a[3] are 8 columns further on;
// - b[0] is column group at rows pair and pair + 1; b[1] is 8 rows further on;
// - sums are row group at columns pair and pair + 1, then row group + 8.
__device__ __forceinline__ void mma(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 × 8 tiles of 16-bit numbers out of shared memory: lane i points at row i % 8 of tile i / 8, and gets
// row i / 4 of each at columns 2 · (i % 4) and the next.
__device__ __forceinline__ void load_tiles(uint32_t (&tiles)[4], const void *shared) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(address)
                 : "memory");
}

// 16 bytes into shared memory while the thread goes on: of them `bytes` out of global memory, the rest 0.
__device__ __forceinline__ void copy_async(void *shared, const void *global, uint32_t bytes) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes)
                 : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most LEFT groups of this thread's copies are under way.
template <int LEFT> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}
