/* Stands at link time for a CUDA library, and finds the real one when one of its functions is first called: so
 * one program runs on hosts with and without it, and pays for it only where it is used. scripts/cuda-toolkit.sh
 * compiles this once per library:
 *
 *   LIBRARY    the name of its file, "libcublas.so.13"
 *   FUNCTIONS  the name of a header with a line for each of its functions: STATUS(cublasCreate_v2), or
 *              TEXT(cublasGetStatusName) if it returns words
 *   ABSENT     the status that they return where there is no such library, or none of that name in it
 *
 * A function is a jump through its slot. A slot begins at code that finds the library, fills all slots and goes
 * on to the function, with the arguments as they came. All names are hidden: the real libraries must not find
 * these in place of each other.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

#if defined(__x86_64__)
#define JUMP(slot) "jmp *" slot "(%rip)\n"
#define FIND(slot) "leaq " slot "(%rip), %rax\n jmp find\n"
#elif defined(__aarch64__)
#define JUMP(slot) "adrp x16, " slot "\n ldr x16, [x16, :lo12:" slot "]\n br x16\n"
#define FIND(slot) "adrp x16, " slot "\n add x16, x16, :lo12:" slot "\n b find\n"
#else
#error "no trampolines for this processor"
#endif

#define SLOTS(what) " .pushsection .data.slots, \"aw\"\n" what "\n .popsection\n"
#define FUNCTION(name)                                                                 \
    " .globl " #name "\n .hidden " #name "\n .type " #name ", %function\n"             \
    #name ":\n " JUMP(".Lslot_" #name) ".Lfirst_" #name ":\n " FIND(".Lslot_" #name)   \
    " .size " #name ", . - " #name "\n"                                                \
    SLOTS(".Lslot_" #name ": .quad .Lfirst_" #name)
#define STATUS FUNCTION
#define TEXT FUNCTION
__asm__(SLOTS(" .balign 8\n slots:") " .text\n"
#include FUNCTIONS
);
#undef STATUS
#undef TEXT

__attribute__((unused)) static int absent_status(void) { return ABSENT; }
__attribute__((unused)) static const char *absent_text(void) { return LIBRARY " was not found"; }

#define STATUS(name) {#name, (void *)absent_status},
#define TEXT(name) {#name, (void *)absent_text},
static const struct {
    const char *name;
    void *absent;
} functions[] = {
#include FUNCTIONS
};
extern void *slots[] __attribute__((visibility("hidden")));

/* Where the loader looks first (LD_LIBRARY_PATH, its cache), then where toolkits lie that it was not told of. */
static void *open_library(void) {
    static const char *const folders[] = {
        "", "/usr/local/cuda/lib64/", "/usr/local/cuda-13/lib64/", "/opt/cuda/lib64/",
    };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s" LIBRARY, folders[i]);
        void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
        if (library) {
            return library;
        }
    }
    return NULL;
}

static void fill_slots(void) {
    void *library = open_library();
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = library ? dlsym(library, functions[i].name) : NULL;
        __atomic_store_n(&slots[i], function ? function : functions[i].absent, __ATOMIC_RELAXED);
    }
}

/* The function that a slot stands for. */
__attribute__((used)) static void *found(void **slot) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_slots);
    return *slot;
}

/* Calls `found` and jumps to what it returns; in between, registers that hold arguments are kept. */
#if defined(__x86_64__)
__asm__(" .text\n .type find, %function\nfind:\n"
        " pushq %rbp\n movq %rsp, %rbp\n"
        " pushq %rdi\n pushq %rsi\n pushq %rdx\n pushq %rcx\n pushq %r8\n pushq %r9\n"
        " subq $128, %rsp\n"
        " movups %xmm0, (%rsp)\n movups %xmm1, 16(%rsp)\n movups %xmm2, 32(%rsp)\n movups %xmm3, 48(%rsp)\n"
        " movups %xmm4, 64(%rsp)\n movups %xmm5, 80(%rsp)\n movups %xmm6, 96(%rsp)\n movups %xmm7, 112(%rsp)\n"
        " movq %rax, %rdi\n call found\n movq %rax, %r11\n"
        " movups (%rsp), %xmm0\n movups 16(%rsp), %xmm1\n movups 32(%rsp), %xmm2\n movups 48(%rsp), %xmm3\n"
        " movups 64(%rsp), %xmm4\n movups 80(%rsp), %xmm5\n movups 96(%rsp), %xmm6\n movups 112(%rsp), %xmm7\n"
        " addq $128, %rsp\n"
        " popq %r9\n popq %r8\n popq %rcx\n popq %rdx\n popq %rsi\n popq %rdi\n popq %rbp\n"
        " jmp *%r11\n .size find, . - find\n");
#else
__asm__(" .text\n .type find, %function\nfind:\n"
        " stp x29, x30, [sp, #-224]!\n mov x29, sp\n"
        " stp x0, x1, [sp, #16]\n stp x2, x3, [sp, #32]\n"
        " stp x4, x5, [sp, #48]\n stp x6, x7, [sp, #64]\n str x8, [sp, #80]\n"
        " stp q0, q1, [sp, #96]\n stp q2, q3, [sp, #128]\n stp q4, q5, [sp, #160]\n stp q6, q7, [sp, #192]\n"
        " mov x0, x16\n bl found\n mov x16, x0\n"
        " ldp q0, q1, [sp, #96]\n ldp q2, q3, [sp, #128]\n ldp q4, q5, [sp, #160]\n ldp q6, q7, [sp, #192]\n"
        " ldp x0, x1, [sp, #16]\n ldp x2, x3, [sp, #32]\n"
        " ldp x4, x5, [sp, #48]\n ldp x6, x7, [sp, #64]\n ldr x8, [sp, #80]\n"
        " ldp x29, x30, [sp], #224\n br x16\n .size find, . - find\n");
#endif
