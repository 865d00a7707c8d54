/* Products of few rows with large float32 weights on CPUs: linear layers and routed experts while decoding.
 *
 * Such a product is as fast as its weights are read. Here they are read once for all rows, shared out by output among
 * the threads of the OpenMP runtime that PyTorch has loaded. A value is the same bits whatever rows are beside its own,
 * and with any number of threads. Knows no Python: few_rows.py calls it by ctypes.
 */

#include "lanes.h"

enum {
    ROWS = 4, /* of the input, and */
    OUTS = 2, /* of the weights, whose sums stay in registers together */
    TASK_OUTS = 32,
    LINE = 16, /* floats that memory brings at once, */
    AHEAD = 2048 /* which are asked for so long before their turn, into the second cache: twice as fast as without. Rows
                  * of weights lie one after the other, so that these are the next rows'. */
};

/* x * sigmoid(x) * up, lane by lane; by e^-|x|, which never overflows. */
INLINE Lanes silu_times(Lanes x, Lanes up) {
    Lanes small = exp_of((Lanes)((IntLanes)x | INT32_MIN));
    Lanes sigmoid = 1.0f / (1.0f + small);
    for (int lane = 0; lane < LANES; lane++)
        sigmoid[lane] = x[lane] < 0.0f ? small[lane] * sigmoid[lane] : sigmoid[lane];
    return x * sigmoid * up;
}

/* sums[row][out] = rows[row] . weights[out]; always ROWS and OUTS of them, some of which may be the same. */
INLINE void dot_products(const float *const *rows, const float *const *weights, int64_t width,
                         float sums[ROWS][OUTS]) {
    Lanes lanes[ROWS][OUTS] = {0};
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) {
        Lanes of_weights[OUTS];
        for (int out = 0; out < OUTS; out++) {
            of_weights[out] = load(weights[out] + at);
            if (at % LINE == 0)
                __builtin_prefetch(weights[out] + at + AHEAD, 0, 2);
        }
        for (int row = 0; row < ROWS; row++) {
            Lanes values = load(rows[row] + at);
            for (int out = 0; out < OUTS; out++)
                lanes[row][out] += values * of_weights[out];
        }
    }
    for (int row = 0; row < ROWS; row++)
        for (int out = 0; out < OUTS; out++) {
            sums[row][out] = sum_of(lanes[row][out]);
            for (int64_t rest = at; rest < width; rest++)
                sums[row][out] += rows[row][rest] * weights[out][rest];
        }
}

/* output[row, out] = input[row] . weights[out] for outs first..last. */
FOR_EACH_CPU
void few_rows_part(const float *input, int64_t input_stride, int64_t num_rows, const float *weights, int64_t width,
                   int64_t first, int64_t last, float *output, int64_t output_stride) {
    for (int64_t out = first; out < last; out += OUTS)
        for (int64_t row = 0; row < num_rows; row += ROWS) {
            const float *rows[ROWS], *of_outs[OUTS];
            float sums[ROWS][OUTS];
            for (int next = 0; next < ROWS; next++)
                rows[next] = input + (row + next < num_rows ? row + next : row) * input_stride;
            for (int next = 0; next < OUTS; next++)
                of_outs[next] = weights + (out + next < last ? out + next : out) * width;
            dot_products(rows, of_outs, width, sums);
            for (int next = 0; next < ROWS && row + next < num_rows; next++)
                for (int other = 0; other < OUTS && out + other < last; other++)
                    output[(row + next) * output_stride + out + other] = sums[next][other];
        }
}

FOR_EACH_CPU
void few_rows_silu(float *gate_up, int64_t width, float *output) {
    int64_t at = 0;
    for (; at + LANES <= width; at += LANES) {
        Lanes lanes = silu_times(load(gate_up + at), load(gate_up + width + at));
        store(output + at, lanes);
    }
    if (at < width) {
        float rest[2 * LANES] = {0};
        memcpy(rest, gate_up + at, (width - at) * sizeof *rest);
        memcpy(rest + LANES, gate_up + width + at, (width - at) * sizeof *rest);
        Lanes lanes = silu_times(load(rest), load(rest + LANES));
        memcpy(output + at, &lanes, (width - at) * sizeof *rest);
    }
}

/* output [rows, outs] = input [rows, width] times weights [outs, width] transposed. */
void few_rows_linear(const float *input, int64_t input_stride, int64_t num_rows, const float *weights, int64_t outs,
                     int64_t width, float *output) {
    int64_t tasks = (outs + TASK_OUTS - 1) / TASK_OUTS;
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first = task * TASK_OUTS, last = first + TASK_OUTS < outs ? first + TASK_OUTS : outs;
        few_rows_part(input, input_stride, num_rows, weights, width, first, last, output, outs);
    }
}

/* Rows offsets[e-1]..offsets[e] through expert e: down [E, width, inner] times silu(gate) * up, of gate_up
 * [E, 2 inner, width]. gate_up_output [rows, 2 inner] and inner_output [rows, inner] are room to work in. */
void few_rows_experts(const float *input, int64_t input_stride, const int32_t *offsets, int64_t num_experts,
                      const float *gate_up, const float *down, int64_t width, int64_t inner, float *gate_up_output,
                      float *inner_output, float *output) {
    int64_t num_rows = offsets[num_experts - 1];
    int64_t inner_tasks = (2 * inner + TASK_OUTS - 1) / TASK_OUTS, outer_tasks = (width + TASK_OUTS - 1) / TASK_OUTS;
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < num_experts * inner_tasks; task++) {
            int64_t expert = task / inner_tasks, start = expert ? offsets[expert - 1] : 0;
            int64_t first = task % inner_tasks * TASK_OUTS;
            int64_t last = first + TASK_OUTS < 2 * inner ? first + TASK_OUTS : 2 * inner;
            few_rows_part(input + start * input_stride, input_stride, offsets[expert] - start,
                          gate_up + expert * 2 * inner * width, width, first, last, gate_up_output + start * 2 * inner,
                          2 * inner);
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t row = 0; row < num_rows; row++)
            few_rows_silu(gate_up_output + row * 2 * inner, inner, inner_output + row * inner);
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < num_experts * outer_tasks; task++) {
            int64_t expert = task / outer_tasks, start = expert ? offsets[expert - 1] : 0;
            int64_t first = task % outer_tasks * TASK_OUTS;
            int64_t last = first + TASK_OUTS < width ? first + TASK_OUTS : width;
            few_rows_part(inner_output + start * inner, inner, offsets[expert] - start, down + expert * width * inner,
                          inner, first, last, output + start * width, width);
        }
    }
}
