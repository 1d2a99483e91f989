/* A stand-in for libcuda.so.1: it sees the cards whose nodes it can open, and adds vectors on the processor.
   INIT_ERROR: what cuInit answers. WRONG_CARD: the card that adds wrongly. HANG_CARD: the one that never answers.
   LEAKY_CARD: the one that hands out memory as the process before left it, where that was our own check. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef INIT_ERROR
#define INIT_ERROR 0
#endif
#ifndef WRONG_CARD
#define WRONG_CARD -1
#endif
#ifndef HANG_CARD
#define HANG_CARD -1
#endif
#ifndef LEAKY_CARD
#define LEAKY_CARD -1
#endif
#define CARDS_MAX 8

typedef unsigned long long ull;
static int seen[CARDS_MAX], count, current;

static int opens(const char *path) {
    int file = open(path, O_RDWR);
    if (file >= 0) close(file);
    return file >= 0;
}
static int is_visible(int card) {
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    char uuid[64];
    snprintf(uuid, sizeof uuid, "GPU-00000000-0000-0000-0000-00000000000%d", card);
    return wanted == NULL || strstr(wanted, uuid) != NULL;
}
int cuInit(unsigned flags) {
    (void)flags;
    char path[32];
    if (INIT_ERROR) return INIT_ERROR;
    if (!opens("/dev/nvidiactl")) return 100;
    if (!opens("/dev/nvidia-uvm")) return 999;
    for (int card = count = 0; card < CARDS_MAX; card++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", card);
        if (opens(path) && is_visible(card)) seen[count++] = card;
    }
    return count ? 0 : 100;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 999 ? "CUDA_ERROR_UNKNOWN" : "CUDA_ERROR";
    return 0;
}
int cuDeviceGetCount(int *found) { *found = count; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < count ? 0 : 101; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    (void)flags;
    *context = &seen[device];
    current = seen[device];
    return 0;
}
int cuCtxDestroy_v2(void *context) { (void)context; return 0; }
int cuModuleLoadData(void **module, const char *ptx) {
    *module = (void *)ptx;
    return strstr(ptx, ".target sm_50") && strstr(ptx, ".visible .entry perak_add(") ? 0 : 218;
}
int cuModuleGetFunction(void **kernel, void *module, const char *name) {
    *kernel = module;
    return strcmp(name, "perak_add") ? 500 : 0;
}
int cuMemAlloc_v2(ull *pointer, size_t size) {
    unsigned *memory = calloc(1, size);
    *pointer = (ull)(size_t)memory;
    for (size_t i = 0; LEAKY_CARD == current && memory && i < size / 4; i++) memory[i] = 0x5EEDBA17;
    return memory ? 0 : 2;
}
int cuMemGetInfo_v2(size_t *left, size_t *total) { *left = *total = 64 << 20; return 0; }
int cuMemsetD32_v2(ull to, unsigned value, size_t count) {
    for (size_t i = 0; i < count; i++) ((unsigned *)(size_t)to)[i] = value;
    return 0;
}
int cuMemcpyHtoD_v2(ull to, const void *from, size_t size) { memcpy((void *)(size_t)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, ull from, size_t size) { memcpy(to, (void *)(size_t)from, size); return 0; }
int cuCtxSynchronize(void) { while (current == HANG_CARD) sleep(1); return 0; }
int cuLaunchKernel(void *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    (void)kernel, (void)gy, (void)gz, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    float *a = *(float **)arguments[0], *b = *(float **)arguments[1], *sum = *(float **)arguments[2];
    unsigned length = *(unsigned *)arguments[3];
    if ((ull)gx * bx < length) return 1;
    for (unsigned i = 0; i < length; i++) sum[i] = a[i] + b[i] + (current == WRONG_CARD && i % 2);
    return 0;
}
