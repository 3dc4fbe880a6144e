// Threads and phases. A block of THREADS threads trains a run.
//
// A kernel is a sequence of phases. A phase is code of one thread, number `t`; a barrier follows it. Within a phase no
// thread reads what another writes. So a phase has one result in whatever order its threads run, and a processor can
// take them one after the other: that is how the tests run these kernels, forwards, backwards and shuffled.
// What decides the course of a kernel (numbers of steps, a loss) is the same for all threads: it was written in an
// earlier phase, or by the host.

namespace card {

typedef unsigned char Byte;
typedef unsigned short Word;
typedef unsigned int Bits32;
typedef unsigned long long Bits64;

#define THREADS 256

#define DEVICE __device__ __forceinline__
#define APART __device__ __noinline__  // a function of its own, with all registers for itself
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 1)
#define SHARED __shared__  // by all threads of a block
#define HOLD asm volatile("" ::: "memory")  // load no earlier: that would take registers
#define OWN(kind, name) kind name  // of each thread, from phase to phase: in registers
#define MINE(name) name
#define PHASE(...) \
    do { \
        const int t = threadIdx.x; \
        __VA_ARGS__; \
        __syncthreads(); \
    } while (0)
#define BLOCK blockIdx.x
#define UNROLL _Pragma("unroll")
#define KEEP_LOOP _Pragma("unroll 1")
#define UNROLL_SOME _Pragma("unroll 16")

DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float root(float a) { return __fsqrt_rn(a); }
DEVICE double from_bits(long long bits) { return __longlong_as_double(bits); }
DEVICE long long to_bits(double number) { return __double_as_longlong(number); }
DEVICE float from_bits32(Bits32 bits) { return __uint_as_float(bits); }
DEVICE Bits32 to_bits32(float number) { return __float_as_uint(number); }
DEVICE Bits64 high_product(Bits64 a, Bits64 b) { return __umul64hi(a, b); }
// Call a function at an address that the compiler does not know. Where it knows, it allots registers to all functions
// together, and keeps the sums of products in memory.
template <class... Parameters> DEVICE void call(void (*function)(Parameters...), Parameters... arguments) {
    asm volatile("" : "+l"(function));
    function(arguments...);
}

DEVICE long long nanoseconds() {
    long long now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}
