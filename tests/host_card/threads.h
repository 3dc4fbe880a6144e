// Phases for a processor: the threads of a block take turns, in an order that a test chooses.

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>

typedef unsigned long long Bits64_;

namespace card {

typedef unsigned char Byte;
typedef unsigned short Word;
typedef unsigned int Bits32;
typedef unsigned long long Bits64;

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

#define THREADS 256
#define DEVICE inline
#define APART inline
#define HOLD
#define KERNEL extern "C" void
#define SHARED static
#define OWN(kind, name) static kind name[THREADS]
#define MINE(name) name[t]
#define PHASE(...) \
    do { \
        for (int turn = 0; turn < THREADS; turn++) { \
            const int t = order[turn]; \
            __VA_ARGS__; \
        } \
    } while (0)
#define BLOCK block
#define UNROLL
#define KEEP_LOOP
#define UNROLL_SOME

static int order[THREADS];
static int block;

DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEVICE float root(float a) { return __builtin_sqrtf(a); }
DEVICE double from_bits(long long bits) {
    double number;
    memcpy(&number, &bits, 8);
    return number;
}
DEVICE long long to_bits(double number) {
    long long bits;
    memcpy(&bits, &number, 8);
    return bits;
}
DEVICE float from_bits32(Bits32 bits) {
    float number;
    memcpy(&number, &bits, 4);
    return number;
}
DEVICE Bits32 to_bits32(float number) {
    Bits32 bits;
    memcpy(&bits, &number, 4);
    return bits;
}
DEVICE Bits64 high_product(Bits64 a, Bits64 b) { return (Bits64)((unsigned __int128)a * b >> 64); }
template <class... Parameters> DEVICE void call(void (*function)(Parameters...), Parameters... arguments) {
    function(arguments...);
}

DEVICE long long nanoseconds() {
    timespec now;
    timespec_get(&now, TIME_UTC);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

// ---- A driver of one card, whose memory is this process's ----

}

extern "C" {
// What kind of card it is; a test's environment may say otherwise.
static int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}
static int free_mib = 0;

void set_order(const int *turns) { memcpy(card::order, turns, sizeof(card::order)); }
void set_memory(int free) { free_mib = free; }
int cuInit(unsigned) {
    for (int t = 0; t < THREADS; t++) card::order[t] = t;
    return setting("HOST_CARDS", 1) ? 0 : 100;
}
int cuDriverGetVersion(int *version) { return *version = setting("HOST_DRIVER", 13000), 0; }
int cuDeviceGetCount(int *count) { return *count = setting("HOST_CARDS", 1), 0; }
int cuDeviceGet(int *device, int) { return *device = 0, 0; }
int cuDeviceGetName(char *name, int size, int) { return strncpy(name, "Test card", size), 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    const int capability = setting("HOST_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 132;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = nullptr, 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxSetLimit(int, size_t) { return 0; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
    return 0;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    const int mib = free_mib ? free_mib : setting("HOST_MEMORY", 2048);
    return *free = *total = (size_t)mib << 20, 0;
}
int cuMemAlloc_v2(Bits64_ *address, size_t size) {
    void *place = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    *address = (Bits64_)place;
    return place ? 0 : 2;
}
int cuMemFree_v2(Bits64_ address) { return ::free((void *)address), 0; }
int cuMemsetD8_v2(Bits64_ address, unsigned char value, size_t size) { return memset((void *)address, value, size), 0; }
int cuMemcpyHtoD_v2(Bits64_ to, const void *from, size_t size) { return memcpy((void *)to, from, size), 0; }
int cuMemcpyDtoH_v2(void *to, Bits64_ from, size_t size) { return memcpy(to, (void *)from, size), 0; }
int cuMemcpyDtoDAsync_v2(Bits64_ to, Bits64_ from, size_t size, void *) {
    return memcpy((void *)to, (void *)from, size), 0;
}
int cuModuleLoadData(void **module, const void *) { return *module = nullptr, 0; }
int cuModuleGetFunction(void **function, void *, const char *) { return *function = nullptr, 0; }
int cuCtxSynchronize() { return 0; }
int cuLaunchKernel(
    void *, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **arguments, void **);
}

namespace card {
