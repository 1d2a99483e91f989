/* What runs on a device that is inspected: the same source for NVIDIA, AMD, Intel and, through pocl, the CPU.

   V words of 32 bits are handled by one work-item: 4 where neighbours are read together (GPUs), 16 where one core
   works through its own part (CPUs). Words are counted from the start of the first of all buffers, so that each has
   a value of its own wherever it lies; `low` and `high` are the halves of the number of a buffer's first word. */

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
typedef GLUE(uint, V) words;
#if V == 16
#define LANES ((words)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#else
#define LANES ((words)(0, 1, 2, 3))
#endif

/* The patterns: what the word of number `n` (of 2^32, with `high` above) holds. */
inline words pattern_address(words n, uint high, uint seed) { return (n + high * 0x9E3779B1u) ^ seed; }
inline words pattern_constant(words n, uint high, uint seed) { return (words)(seed); }
inline words pattern_checkerboard(words n, uint high, uint seed) {
    return ((words)(0) - ((n ^ (n >> 10)) & 1u)) ^ (0x55555555u ^ seed);
}
inline words pattern_random(words n, uint high, uint seed) {
    words x = (n ^ (seed + high * 0x85EBCA6Bu)) * 0x9E3779B1u;
    x = (x ^ (x >> 15)) * 0x2C1B3C6Du;
    return x ^ (x >> 13);
}

/* One work-item has ROUNDS of these vectors: side by side with its neighbours' on a GPU, one after the other on a
   CPU, so that each reads memory in the order that it likes. */
#ifdef CPU
#define FIRST (get_global_id(0) * ROUNDS)
#define STEP 1
#else
#define FIRST (get_group_id(0) * get_local_size(0) * ROUNDS + get_local_id(0))
#define STEP get_local_size(0)
#endif
#define EACH(i) for (uint i = FIRST, round = 0; round < ROUNDS; i += STEP, round++)

/* A word that is not as it should be: its number in the buffer, what was written, what was read. */
inline void tell(__global uint *count, __global uint *found, uint most, uint index, words expected, words read) {
    uint e[V], r[V];
    GLUE(vstore, V)(expected, 0, e);
    GLUE(vstore, V)(read, 0, r);
    for (uint lane = 0; lane < V; lane++)
        if (e[lane] != r[lane]) {
            uint slot = atomic_inc(count);
            if (slot < most) {
                found[slot * 3] = index * V + lane;
                found[slot * 3 + 1] = e[lane];
                found[slot * 3 + 2] = r[lane];
            }
        }
}

/* For each pattern: write it; read it back. What differs is gathered, and told apart only where there is something to
   tell: the way of a healthy device has no branch a word. */
#define MEMORY(name)                                                                                                 \
    __kernel void fill_##name(__global words *buffer, uint low, uint high, uint seed) {                              \
        EACH(i) buffer[i] = pattern_##name(LANES + (low + i * V), high, seed);                                       \
    }                                                                                                                \
    __kernel void check_##name(__global const words *buffer, uint low, uint high, uint seed, __global uint *count,   \
                               __global uint *found, uint most) {                                                    \
        words differing = (words)(0);                                                                                \
        EACH(i) differing |= pattern_##name(LANES + (low + i * V), high, seed) ^ buffer[i];                          \
        if (any(differing != (words)(0)))                                                                            \
            EACH(i) tell(count, found, most, i, pattern_##name(LANES + (low + i * V), high, seed), buffer[i]);       \
    }
/* Read a pattern, and write its inverse in one pass. */
#define TURN(name)                                                                                                   \
    __kernel void turn_##name(__global words *buffer, uint low, uint high, uint seed, __global uint *count,          \
                              __global uint *found, uint most) {                                                     \
        words differing = (words)(0);                                                                                \
        EACH(i) differing |= pattern_##name(LANES + (low + i * V), high, seed) ^ buffer[i];                          \
        if (any(differing != (words)(0)))                                                                            \
            EACH(i) tell(count, found, most, i, pattern_##name(LANES + (low + i * V), high, seed), buffer[i]);       \
        EACH(i) buffer[i] = ~pattern_##name(LANES + (low + i * V), high, seed);                                      \
    }
MEMORY(address)
MEMORY(constant)
MEMORY(checkerboard)
MEMORY(random)
TURN(constant)
TURN(checkerboard)

/* The device's own copy, beside which the kernels above are measured. */
__kernel void copy(__global const words *from, __global words *to) {
    EACH(i) to[i] = from[i];
}

/* C = A * B, N by N, by tiles of local memory; one work-item is one element, and no sum has another order. */
#ifdef CPU
#define TILE 2 /* pocl unrolls a group: one of 16 takes it three times as long to translate, and to run. */
#else
#define TILE 16
#endif
#define PRODUCT(name, type)                                                                                          \
    __kernel __attribute__((reqd_work_group_size(TILE, TILE, 1))) void product_##name(                               \
        __global const type *a, __global const type *b, __global type *c, uint n) {                                  \
        __local type x[TILE][TILE], y[TILE][TILE];                                                                   \
        uint column = get_global_id(0), row = get_global_id(1), i = get_local_id(0), j = get_local_id(1);            \
        type sum = 0;                                                                                                \
        for (uint tile = 0; tile < n; tile += TILE) {                                                                \
            x[j][i] = a[row * n + tile + i];                                                                         \
            y[j][i] = b[(tile + j) * n + column];                                                                    \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                            \
            for (uint k = 0; k < TILE; k++) sum = fma(x[j][k], y[k][i], sum);                                        \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                            \
        }                                                                                                            \
        c[row * n + column] = sum;                                                                                   \
    }

/* Fused multiply-adds in registers: eight chains, so that none waits for another. 16 * V operations a round. */
#define FMA(name, type)                                                                                              \
    __kernel void fma_##name(__global type *out, uint rounds) {                                                      \
        GLUE(type, V) x = (GLUE(type, V))((type)(get_global_id(0) & 255) / (type)256);                               \
        GLUE(type, V) m = (GLUE(type, V))((type)0.5), s0 = x, s1 = x + m, s2 = x - m, s3 = x * m, s4 = -x;           \
        GLUE(type, V) s5 = m - x, s6 = -s3, s7 = m;                                                                  \
        for (uint round = 0; round < rounds; round++) {                                                              \
            s0 = fma(s0, m, x); s1 = fma(s1, m, x); s2 = fma(s2, m, x); s3 = fma(s3, m, x);                          \
            s4 = fma(s4, m, x); s5 = fma(s5, m, x); s6 = fma(s6, m, x); s7 = fma(s7, m, x);                          \
        }                                                                                                            \
        type lanes[V];                                                                                               \
        GLUE(vstore, V)(s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7, 0, lanes);                                            \
        type sum = 0;                                                                                                \
        for (uint lane = 0; lane < V; lane++) sum += lanes[lane];                                                    \
        out[get_global_id(0)] = sum;                                                                                 \
    }

PRODUCT(fp32, float)
FMA(fp32, float)
#ifdef FP64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
PRODUCT(fp64, double)
FMA(fp64, double)
#endif
#ifdef FP16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
PRODUCT(fp16, half)
FMA(fp16, half)
#endif

/* How many words of two results differ: bit-stable means none. */
__kernel void differ(__global const uint *one, __global const uint *other, __global uint *count) {
    if (one[get_global_id(0)] != other[get_global_id(0)]) atomic_inc(count);
}

/* A proof of work done: see perak.domain.hardware.challenge, which has the same in Python. One work-item makes one
   leaf: the sum of the ends of LANES_A_LEAF chains of `steps` steps. */
#define LANES_A_LEAF 64
__kernel void prove(__global uint *leaves, uint first, uint s0, uint s1, uint s2, uint s3, uint steps) {
    uint leaf = first + get_global_id(0), total = 0;
    for (uint group = 0; group < LANES_A_LEAF / V; group++) {
        words lane = LANES + (leaf * LANES_A_LEAF + group * V);
        words x = (lane ^ s0) * 0x9E3779B1u + s1, y = rotate(lane, (words)(16)) ^ s2;
        for (uint step = 0; step < steps; step++) {
            x = (x ^ (x >> 15)) * 0x2C1B3C6Du + y;
            y = rotate(y, (words)(13)) ^ (x + s3);
        }
        uint ends[V];
        GLUE(vstore, V)(x ^ y, 0, ends);
        for (uint i = 0; i < V; i++) total += ends[i];
    }
    leaves[get_global_id(0)] = total;
}

/* Local memory is overwritten too: all of it that a work-group can have, by more groups than there are units. */
__kernel void leave_local(__local uint *local_words, uint words_each, uint value) {
    for (uint i = get_local_id(0); i < words_each; i += get_local_size(0)) local_words[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
}
__kernel void count_local(__local uint *local_words, uint words_each, uint value, __global uint *others) {
    uint found = 0;
    for (uint i = get_local_id(0); i < words_each; i += get_local_size(0)) found += local_words[i] != value;
    if (found) atomic_add(others, found);
}
