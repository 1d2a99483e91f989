/* A stand-in for libnvidia-ml.so.1 whose cards are as the file $NVML_STATE says, read anew at every call:

       cards 2
       0 name NVIDIA A100-SXM4-80GB        (a card's number, or * for all; a key; the rest of the line)
       * remapped 3 1 0 0
       0 lost_after 40                     (calls, after which it is gone from the bus)

   A key that is absent is NVML_ERROR_NOT_SUPPORTED, as on a card that has no such thing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int uint;
typedef unsigned long long ull;
enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, TIMEOUT = 10, LOST = 15, SHORT = 7 };
#define CARDS_MAX 16
static int cards[CARDS_MAX];
static int calls[CARDS_MAX];
static uint told_events[CARDS_MAX];
struct memory { ull total, free, used; };
struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };
struct event { int *card; ull type, data; uint gpu, compute; };
struct histogram { uint max, high, partial, low, none; };

static int look(const char *who, const char *key, char *value, size_t size) {
    FILE *file = fopen(getenv("NVML_STATE") ? getenv("NVML_STATE") : "/nonexistent", "r");
    char line[512];
    int found = 0;
    while (file && fgets(line, sizeof line, file)) {
        char whose[16], name[64];
        int at = 0;
        if (sscanf(line, "%15s %63s %n", whose, name, &at) < 2 || strcmp(name, key)) continue;
        if (strcmp(whose, who) && strcmp(whose, "*")) continue;
        snprintf(value, size, "%s", line + at);
        value[strcspn(value, "\n")] = 0;
        found = 1; /* the last line counts */
    }
    if (file) fclose(file);
    return found;
}
static int state(int *card, const char *key, char *value, size_t size) {
    char who[16], after[32];
    snprintf(who, sizeof who, "%d", *card);
    calls[*card]++;
    if (look(who, "lost_after", after, sizeof after) && calls[*card] > atoi(after)) return LOST;
    return look(who, key, value, size) ? OK : UNSUPPORTED;
}
static int number(int *card, const char *key, ull *value) {
    char text[256];
    int code = state(card, key, text, sizeof text);
    if (code == OK) *value = strtoull(text, NULL, 0);
    return code;
}
static int narrow(int *card, const char *key, uint *value) {
    ull wide = 0;
    int code = number(card, key, &wide);
    if (code == OK) *value = (uint)wide;
    return code;
}

int nvmlInit_v2(void) { for (int i = 0; i < CARDS_MAX; i++) cards[i] = i; return OK; }
int nvmlInitWithFlags(uint flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "stand-in error"; }
int nvmlSystemGetDriverVersion(char *text, uint size) { snprintf(text, size, "580.95.05"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13000; return OK; }
int nvmlDeviceGetCount_v2(uint *count) {
    char text[32] = "1";
    FILE *file = fopen(getenv("NVML_STATE") ? getenv("NVML_STATE") : "/nonexistent", "r");
    char line[512];
    while (file && fgets(line, sizeof line, file)) sscanf(line, "cards %31s", text);
    if (file) fclose(file);
    *count = (uint)atoi(text);
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(uint index, int **card) {
    *card = &cards[index];
    return index < CARDS_MAX ? OK : INVALID;
}

#define TEXT(function, key) \
    int function(int *card, char *text, uint size) { return state(card, key, text, size); }
#define NUMBER(function, key) \
    int function(int *card, uint *value) { return narrow(card, key, value); }
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
NUMBER(nvmlDeviceGetMinorNumber, "minor")
NUMBER(nvmlDeviceGetNumGpuCores, "cores")
NUMBER(nvmlDeviceGetPowerManagementLimit, "limit_milliwatts")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, "limit_milliwatts")
NUMBER(nvmlDeviceGetPowerUsage, "milliwatts")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "generation")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "width")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "generation_slot")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "width_card")
NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, "generation_card")
NUMBER(nvmlDeviceGetPcieReplayCounter, "replays")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, "retirement_pending")
int nvmlDeviceGetTotalEnergyConsumption(int *card, ull *millijoules) {
    static ull passed;
    int code = number(card, "energy", millijoules);
    *millijoules += passed += 1000;
    return code;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(int *card, ull *reasons) { return number(card, "throttle", reasons); }
int nvmlDeviceGetTemperature(int *card, uint sensor, uint *celsius) {
    (void)sensor;
    return narrow(card, "celsius", celsius);
}
int nvmlDeviceGetClockInfo(int *card, uint type, uint *mhz) { return narrow(card, type == 2 ? "memory_mhz" : "mhz", mhz); }
int nvmlDeviceGetMemoryInfo(int *card, struct memory *m) {
    int code = number(card, "memory", &m->total);
    m->free = m->total;
    m->used = 0;
    return code;
}
int nvmlDeviceGetCudaComputeCapability(int *card, int *major, int *minor) {
    char text[32];
    int code = state(card, "capability", text, sizeof text);
    if (code == OK) sscanf(text, "%d.%d", major, minor);
    return code;
}
int nvmlDeviceGetPciInfo_v3(int *card, struct pci *p) {
    char text[64];
    memset(p, 0, sizeof *p);
    int code = state(card, "bus", p->bus_id, sizeof p->bus_id);
    if (state(card, "pci", text, sizeof text) == OK) sscanf(text, "%x %x", &p->id, &p->subsystem);
    return code;
}
int nvmlDeviceGetEccMode(int *card, uint *now, uint *next) {
    int code = narrow(card, "ecc", now);
    *next = *now;
    return code;
}
/* ecc_errors: volatile corrected, volatile uncorrected, aggregate corrected, aggregate uncorrected */
int nvmlDeviceGetTotalEccErrors(int *card, uint uncorrected, uint aggregate, ull *count) {
    char text[128];
    ull found[4];
    int code = state(card, "ecc_errors", text, sizeof text);
    if (code != OK) return code;
    sscanf(text, "%llu %llu %llu %llu", &found[0], &found[1], &found[2], &found[3]);
    *count = found[2 * (aggregate != 0) + (uncorrected != 0)];
    return OK;
}
int nvmlDeviceGetSramEccErrorStatus(int *card, uint *status) {
    uint exceeded;
    int code = narrow(card, "sram_exceeded", &exceeded);
    if (code == OK) status[24] = exceeded; /* after the version, padding, and eleven counters of 64 bits */
    return code;
}
int nvmlDeviceGetRetiredPages(int *card, uint cause, uint *count, ull *pages) {
    uint found, room = *count;
    int code = narrow(card, cause ? "retired_double" : "retired_single", &found);
    if (code != OK) return code;
    *count = found;
    if (pages == NULL || room < found) return found ? SHORT : OK;
    for (uint i = 0; i < found; i++) pages[i] = i;
    return OK;
}
int nvmlDeviceGetRemappedRows(int *card, uint *corrected, uint *uncorrected, uint *pending, uint *failed) {
    char text[128];
    int code = state(card, "remapped", text, sizeof text);
    if (code == OK) sscanf(text, "%u %u %u %u", corrected, uncorrected, pending, failed);
    return code;
}
int nvmlDeviceGetRowRemapperHistogram(int *card, struct histogram *banks) {
    char text[128];
    int code = state(card, "banks", text, sizeof text);
    if (code == OK)
        sscanf(text, "%u %u %u %u %u", &banks->max, &banks->high, &banks->partial, &banks->low, &banks->none);
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(int *card, uint *count, void *found) {
    (void)found;
    uint running;
    int code = narrow(card, "processes", &running);
    if (code != OK) return code;
    *count = running;
    return OK;
}
/* nvlink: a word of 0s and 1s, a link each; nvlink_errors: of each link that is up */
int nvmlDeviceGetNvLinkState(int *card, uint link, uint *active) {
    char text[64];
    int code = state(card, "nvlink", text, sizeof text);
    if (code != OK || link >= strlen(text)) return code == OK ? INVALID : code;
    *active = text[link] == '1';
    return OK;
}
int nvmlDeviceGetNvLinkErrorCounter(int *card, uint link, uint counter, ull *count) {
    (void)link;
    *count = 0;
    return counter ? OK : number(card, "nvlink_errors", count);
}
/* xid: numbers, each told once */
int nvmlEventSetCreate(void **set) { *set = cards; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceRegisterEvents(int *card, ull types, void *set) {
    char text[16];
    (void)types, (void)set;
    return state(card, "events", text, sizeof text);
}
int nvmlEventSetWait_v2(void *set, struct event *event, uint milliseconds) {
    (void)set, (void)milliseconds;
    char text[128];
    if (state(&cards[0], "xid", text, sizeof text) != OK) return TIMEOUT;
    char *word = strtok(text, " ");
    for (uint i = 0; word && i < told_events[0]; i++) word = strtok(NULL, " ");
    if (!word) return TIMEOUT;
    told_events[0]++;
    event->card = &cards[0];
    event->type = 8;
    event->data = strtoull(word, NULL, 10);
    return OK;
}
