/* A stand-in for libnvidia-ml.so.1: CARDS cards of one model. Its energy counter runs at WATTS, by the clock. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef CARDS
#define CARDS 2
#endif
#ifndef WATTS
#define WATTS 200
#endif
#ifndef MODEL
#define MODEL "Tesla V100-SXM2-16GB"
#endif
#ifndef MAJOR
#define MAJOR 7
#endif
#ifndef MINOR
#define MINOR 0
#endif
#ifndef DRIVER
#define DRIVER "580.95.05"
#endif
#ifndef CUDA
#define CUDA 13000
#endif

typedef unsigned int uint;
typedef unsigned long long ull;
struct memory { ull total, free, used; };
struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };
static int cards[CARDS];

int nvmlInit_v2(void) { for (int i = 0; i < CARDS; i++) cards[i] = i; return 0; }
int nvmlInitWithFlags(uint flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "stand-in error"; }
int nvmlSystemGetDriverVersion(char *text, uint size) { snprintf(text, size, DRIVER); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = CUDA; return 0; }
int nvmlDeviceGetCount_v2(uint *count) { *count = CARDS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(uint index, int **card) { *card = &cards[index]; return index < CARDS ? 0 : 2; }
#ifndef USED_CARD
#define USED_CARD -1
#endif
int nvmlDeviceGetComputeRunningProcesses_v3(int *card, uint *count, void *found) {
    (void)found;
    uint used = *card == USED_CARD, room = *count;
    *count = used;
    return used > room ? 7 : 0; /* NVML_ERROR_INSUFFICIENT_SIZE */
}
int nvmlDeviceGetUUID(int *card, char *text, uint size) {
    snprintf(text, size, "GPU-00000000-0000-0000-0000-00000000000%d", *card);
    return 0;
}
int nvmlDeviceGetName(int *card, char *text, uint size) { (void)card; snprintf(text, size, MODEL); return 0; }
int nvmlDeviceGetMemoryInfo(int *card, struct memory *m) {
    (void)card;
    m->total = m->free = 16ULL << 30;
    m->used = 0;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(int *card, int *major, int *minor) {
    (void)card;
    *major = MAJOR;
    *minor = MINOR;
    return 0;
}
int nvmlDeviceGetPowerManagementLimit(int *card, uint *mw) { (void)card; *mw = 300000; return 0; }
int nvmlDeviceGetPowerUsage(int *card, uint *mw) { (void)card; *mw = WATTS * 1000; return 0; }
/* The file TEMPERATURES, where there is one, has the temperature of each card in degrees, in order. */
#ifdef TEMPERATURES
int nvmlDeviceGetTemperature(int *card, uint sensor, uint *celsius) {
    (void)sensor;
    FILE *file = fopen(TEMPERATURES, "r");
    if (!file) return 3;
    int read = 0;
    for (int i = 0; i <= *card; i++) read += fscanf(file, "%u", celsius) == 1;
    fclose(file);
    return read == *card + 1 ? 0 : 3;
}
int nvmlDeviceGetTemperatureThreshold(int *card, uint threshold, uint *celsius) {
    (void)card;
    if (threshold > 1) return 3;
    *celsius = threshold == 0 ? 95 : 90;
    return 0;
}
#endif
/* The file FAULTS, where there is one, has the Xid of each card in order, told once when it changes; 0: none. */
#ifdef FAULTS
static int told[CARDS];
int nvmlEventSetCreate(void **set) { static int sets[CARDS], made; *set = &sets[made++ % CARDS]; return 0; }
int nvmlDeviceRegisterEvents(int *card, ull types, int *set) { (void)types; *set = *card; return 0; }
struct event { int *card; ull type, data; uint gpu, compute; };
int nvmlEventSetWait_v2(int *set, struct event *event, uint milliseconds) {
    (void)milliseconds;
    int xid = 0, read = 0;
    FILE *file = fopen(FAULTS, "r");
    for (int i = 0; file && i <= *set; i++) read += fscanf(file, "%d", &xid) == 1;
    if (file) fclose(file);
    if (read != *set + 1 || xid == told[*set]) return 10; /* NVML_ERROR_TIMEOUT */
    told[*set] = xid;
    if (!xid) return 10;
    *event = (struct event){.card = &cards[*set], .type = 8, .data = xid};
    return 0;
}
#endif
int nvmlDeviceGetMinorNumber(int *card, uint *minor) { *minor = *card; return 0; }
int nvmlDeviceGetPciInfo_v3(int *card, struct pci *p) {
    memset(p, 0, sizeof *p);
    snprintf(p->bus_id, sizeof p->bus_id, "00000000:F%d:00.0", *card);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(int *card, ull *mj) {
    (void)card;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *mj = (ull)now.tv_sec * WATTS * 1000 + (ull)now.tv_nsec / 1000000 * WATTS;
    return 0;
}
