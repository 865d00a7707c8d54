/* Bicubic scaling of 8-bit RGB, equal to Pillow's (12.3, Image.resize) to the last bit, several times as fast.
 *
 * Weights are cubic convolution with a = -1/2 over a support that grows with the reduction, normalised, and rounded to
 * 22 fractional bits; each of the two passes, across and then down, sums in 32-bit integers and rounds to 8 bits. Knows
 * no Python: model/resample.py calls it by ctypes.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

enum {
    FRACTION_BITS = 22,
    HALF = 1 << (FRACTION_BITS - 1),
    ROWS = 16,           /* that `across` works on at once */
    LANES = 4 * ROWS,    /* bytes of a column of them, of four each */
    CHUNK = 64           /* bytes of a row that `down` works on at once */
};

static inline uint8_t rounded(int32_t sum) {
    int32_t level = sum >> FRACTION_BITS;
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

static double cubic(double x) {
    x = fabs(x);
    if (x < 1.0)
        return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0)
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return 0.0;
}

/* The most input values that one output value is made of. */
int32_t max_taps(int64_t size_in, int64_t size_out) {
    double scale = (double)size_in / (double)size_out;
    return (int32_t)ceil(2.0 * (scale > 1.0 ? scale : 1.0)) * 2 + 1;
}

/* Of each output value: the first input value, how many, and their weights [size_out, taps]. `exact`: [taps]. */
void weigh(int64_t size_in, int64_t size_out, int32_t taps, int32_t *first, int32_t *count, int32_t *weights,
           double *exact) {
    double scale = (double)size_in / (double)size_out;
    double reduction = scale > 1.0 ? scale : 1.0;
    double support = 2.0 * reduction, inverse = 1.0 / reduction;
    for (int64_t out = 0; out < size_out; out++) {
        double center = (out + 0.5) * scale, total = 0.0;
        int64_t low = (int64_t)(center - support + 0.5), high = (int64_t)(center + support + 0.5);
        low = low < 0 ? 0 : low;
        high = high > size_in ? size_in : high;
        for (int64_t in = low; in < high; in++)
            total += exact[in - low] = cubic(((double)in - center + 0.5) * inverse);
        first[out] = (int32_t)low;
        count[out] = (int32_t)(high - low);
        for (int64_t tap = 0; tap < high - low; tap++) {
            double weight = (total != 0.0 ? exact[tap] / total : exact[tap]) * (1 << FRACTION_BITS);
            weights[out * taps + tap] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
    }
}

/* rgbx [rows, width_in] of four bytes -> rgb [rows, width_out, 3]. Rows are turned into columns, ROWS at a time, so that
 * neighbours in memory have the same weight. `scratch`: LANES * width_in bytes. */
FOR_EACH_CPU
void across(const uint32_t *rgbx, int64_t rows, int64_t width_in, int64_t width_out, int32_t taps, const int32_t *first,
            const int32_t *count, const int32_t *weights, uint8_t *scratch, uint8_t *rgb) {
    uint32_t *columns = (uint32_t *)scratch;
    for (int64_t top = 0; top < rows; top += ROWS) {
        int64_t height = rows - top < ROWS ? rows - top : ROWS;
        for (int64_t x = 0; x < width_in; x++)
            for (int64_t row = 0; row < height; row++)
                columns[x * ROWS + row] = rgbx[(top + row) * width_in + x];
        for (int64_t out = 0; out < width_out; out++) {
            const uint8_t *in = scratch + (int64_t)first[out] * LANES;
            const int32_t *weight = weights + out * taps;
            int32_t sums[LANES];
            uint8_t levels[LANES];
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] = HALF;
            for (int64_t tap = 0; tap < count[out]; tap++, in += LANES)
                for (int lane = 0; lane < LANES; lane++)
                    sums[lane] += weight[tap] * in[lane];
            for (int lane = 0; lane < LANES; lane++)
                levels[lane] = rounded(sums[lane]);
            for (int64_t row = 0; row < height; row++)
                memcpy(rgb + ((top + row) * width_out + out) * 3, levels + row * 4, 3);
        }
    }
}

/* rgb [height_in, width, 3] -> tiles [n, size, size, 3], of which `tiles_wide` make a row: the scaled picture lies on
 * the mosaic of tiles with its upper left corner at (left, top). `scratch`: 3 * width bytes. */
FOR_EACH_CPU
void down(const uint8_t *rgb, int64_t width, int64_t height_out, int32_t taps, const int32_t *first,
          const int32_t *count, const int32_t *weights, uint8_t *scratch, uint8_t *tiles, int64_t size,
          int64_t tiles_wide, int64_t left, int64_t top) {
    int64_t length = 3 * width;
    for (int64_t out = 0; out < height_out; out++) {
        const uint8_t *in = rgb + (int64_t)first[out] * length;
        const int32_t *weight = weights + out * taps;
        int64_t done = 0;
        for (; done + CHUNK <= length; done += CHUNK) {
            int32_t sums[CHUNK];
            for (int lane = 0; lane < CHUNK; lane++)
                sums[lane] = HALF;
            const uint8_t *chunk = in + done;
            for (int64_t tap = 0; tap < count[out]; tap++, chunk += length)
                for (int lane = 0; lane < CHUNK; lane++)
                    sums[lane] += weight[tap] * chunk[lane];
            for (int lane = 0; lane < CHUNK; lane++)
                scratch[done + lane] = rounded(sums[lane]);
        }
        for (; done < length; done++) {
            int32_t sum = HALF;
            for (int64_t tap = 0; tap < count[out]; tap++)
                sum += weight[tap] * in[tap * length + done];
            scratch[done] = rounded(sum);
        }
        int64_t y = top + out;
        for (int64_t x = left; x < left + width;) {
            int64_t tile = y / size * tiles_wide + x / size;
            int64_t end = (x / size + 1) * size < left + width ? (x / size + 1) * size : left + width;
            memcpy(tiles + ((tile * size + y % size) * size + x % size) * 3, scratch + (x - left) * 3, 3 * (end - x));
            x = end;
        }
    }
}
