// The operations that decide a bit: see `engines/kernels/arithmetic.py`, which has the same, and docs/arithmetic.md.
// The compiler gets no licence to contract, reorder or replace: --fmad=false --prec-div=true --prec-sqrt=true
// --ftz=false.

DEVICE bool is_finite(float a) { return a - a == 0; }
DEVICE bool is_finite(double a) { return a - a == 0; }

// Return 0 in the place of what is smaller than TINY; NaN stays.
DEVICE float flushed(float a) { return fabsf(a) < TINY ? 0.0f : a; }
DEVICE float flushed_square(float a) { return a < TINY ? 0.0f : a; }

// ---- Square roots and quotients without branches ----
//
// The compiler puts a branch for rare arguments into each square root and division, so one begins when the last has
// ended. These have none, and those of several numbers overlap. Newton's iteration comes near, and a last step with the
// remainder, which a fused multiply-add computes exactly, rounds as IEEE 754 says (Markstein 1990, "Computation of
// elementary functions on the IBM RISC System/6000 processor", IBM Journal of Research and Development 34): for |a| and
// b of 2**-100 to 2**28, and quotients of 2**-125 to 2**125. His theorem asks for a correctly rounded 1 / b. Tests try
// all mantissas of a root and of an inverse.

// The bit RARE is set if |a| is below 2**-100, or not below 2**28.
#define RARE 0x80000000
DEVICE Bits32 rare(float a) { return 2 * to_bits32(a) - 2 * to_bits32(TINY); }

DEVICE float usual_root(float a) {
    const float near = from_bits32(0x5F3759DF - (to_bits32(a) >> 1));  // 1 / sqrt(a), to 4 %
    float root = a * near, half = 0.5f * near;                        // half of 1 / sqrt(a)
    UNROLL for (int i = 0; i < 3; i++) {
        const float rest = fma(-root, half, 0.5f);
        root = fma(root, rest, root);
        half = fma(half, rest, half);
    }
    return fma(fma(-root, root, a), half, root);
}

DEVICE float usual_inverse(float b) {
    float inverse = from_bits32(0x7F000000 - to_bits32(b));  // 1 / b or more, to an eighth
    UNROLL for (int i = 0; i < 2; i++) {
        const float rest = fma(-b, inverse, 1.0f);
        inverse = fma(inverse, fma(rest, rest, rest), inverse);
    }
    return fma(inverse, fma(-b, inverse, 1.0f), inverse);
}

DEVICE float usual_quotient(float a, float b) {
    const float inverse = usual_inverse(b);
    float quotient = a * inverse;  // the first step brings it within a unit, the second rounds it
    UNROLL for (int i = 0; i < 2; i++) quotient = fma(fma(-b, quotient, a), inverse, quotient);
    return quotient;
}

// Of a float32 argument Numba computes the remainder r, and the last sum, in float32: so do we.
DEVICE double exp_of(float x) {
    if (x < EXP_SMALLEST) return 0.0;
    if (x > EXP_LARGEST) return x * 1e308;
    if (x != x) return x;
    const double k = fma((double)x, LOG2_E, ROUND) - ROUND;
    const float r = fma((float)k, (float)-LN2_LOW, fma((float)k, (float)-LN2_HIGH, x));
    double q = 1 / 6227020800.0;
    q = fma(q, (double)r, 1 / 479001600.0);
    q = fma(q, (double)r, 1 / 39916800.0);
    q = fma(q, (double)r, 1 / 3628800.0);
    q = fma(q, (double)r, 1 / 362880.0);
    q = fma(q, (double)r, 1 / 40320.0);
    q = fma(q, (double)r, 1 / 5040.0);
    q = fma(q, (double)r, 1 / 720.0);
    q = fma(q, (double)r, 1 / 120.0);
    q = fma(q, (double)r, 1 / 24.0);
    q = fma(q, (double)r, 1 / 6.0);
    q = fma(q, (double)r, 0.5);
    const double e = 1.0 + fma(r * r, (float)q, r);
    return e * from_bits(((long long)k + 1023) << 52);
}

DEVICE double log_of(double x) {
    if (!(x < INFINITE)) return x;
    const long long bits = to_bits(x), k = (bits - 0x3FE6A09E667F3BCD) >> 52;
    const double f = from_bits(bits - (long long)((Bits64)k << 52)) - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double r = 2 / 23.0;
    r = fma(r, z, 2 / 21.0);
    r = fma(r, z, 2 / 19.0);
    r = fma(r, z, 2 / 17.0);
    r = fma(r, z, 2 / 15.0);
    r = fma(r, z, 2 / 13.0);
    r = fma(r, z, 2 / 11.0);
    r = fma(r, z, 2 / 9.0);
    r = fma(r, z, 2 / 7.0);
    r = fma(r, z, 2 / 5.0);
    r = fma(r, z, 2 / 3.0);
    const double half = 0.5 * f * f, e = (double)k;
    return fma(e, LN2_HIGH, -((half - fma(s, fma(r, z, half), e * LN2_LOW)) - f));
}
