/* What the kernels for CPUs share: vectors of LANES floats, for whatever the CPU has. */

#ifndef LABELMILL_LANES_H
#define LABELMILL_LANES_H

#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed to what is inlined only */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8 };

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t IntLanes __attribute__((vector_size(4 * LANES)));

INLINE Lanes load(const float *from) {
    Lanes lanes;
    memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

INLINE void store(float *to, Lanes lanes) { memcpy(to, &lanes, sizeof lanes); }

INLINE float sum_of(Lanes x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

/* e^x for x <= 0 within 2 units in the last place: 2^n times a polynomial of what is left of x, |r| <= ln(2) / 2. */
INLINE Lanes exp_of(Lanes x) {
    for (int lane = 0; lane < LANES; lane++)
        x[lane] = x[lane] < -87.0f ? -87.0f : x[lane];
    Lanes halves = x * 1.44269504f - 0.5f;
    IntLanes n = __builtin_convertvector(halves, IntLanes); /* towards zero: to the nearest, as x is not positive */
    Lanes whole = __builtin_convertvector(n, Lanes);
    Lanes r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Lanes p = (Lanes){0} + 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (Lanes)((n + 127) << 23);
}

#endif
