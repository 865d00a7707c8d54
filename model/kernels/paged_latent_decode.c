/* Absorbed MLA attention of decoding sequences over the paged cache, in float32 on CPUs.
 *
 * The arguments are those of model/kernels/paged_latent_decode.py. A context is read in pieces of PIECE tokens, whatever
 * else is in the batch, and pieces are merged in their order: a sequence's result is the same bits in any batch and with
 * any number of threads. Threads are those of the OpenMP runtime that PyTorch has loaded. Knows no Python:
 * paged_latent_decode_cpu.py calls it by ctypes.
 */

#include <math.h>

#include "lanes.h"

enum {
    HEADS = 4, /* that are worked on at once: their sums stay in registers */
    MAX_HEADS = 64,
    PIECE = 64
};

/* Scores [HEADS, PIECE] of `tokens` rows; lanes past the width are left to a scalar loop. */
INLINE void score(const float *const *queries, const float *const *rows, int tokens, int64_t width, float scale,
                  float *scores) {
    for (int token = 0; token < tokens; token++) {
        const float *row = rows[token];
        Lanes sums[HEADS] = {0};
        int64_t at = 0;
        for (; at + LANES <= width; at += LANES) {
            Lanes values = load(row + at);
            for (int head = 0; head < HEADS; head++)
                sums[head] += load(queries[head] + at) * values;
        }
        for (int head = 0; head < HEADS; head++) {
            float sum = sum_of(sums[head]);
            for (int64_t rest = at; rest < width; rest++)
                sum += queries[head][rest] * row[rest];
            scores[head * PIECE + token] = sum * scale;
        }
    }
}

/* Adds weights [HEADS, PIECE] times the rows' first `latent` values to sums [HEADS, latent]. */
INLINE void add_values(const float *weights, int heads, const float *const *rows, int tokens, int64_t latent,
                       float *sums) {
    int64_t at = 0;
    for (; at + LANES <= latent; at += LANES) {
        Lanes partial[HEADS];
        for (int head = 0; head < HEADS; head++)
            partial[head] = head < heads ? load(sums + head * latent + at) : (Lanes){0};
        for (int token = 0; token < tokens; token++) {
            Lanes values = load(rows[token] + at);
            for (int head = 0; head < HEADS; head++)
                partial[head] += weights[head * PIECE + token] * values;
        }
        for (int head = 0; head < heads; head++)
            store(sums + head * latent + at, partial[head]);
    }
    for (; at < latent; at++)
        for (int head = 0; head < heads; head++)
            for (int token = 0; token < tokens; token++)
                sums[head * latent + at] += weights[head * PIECE + token] * rows[token][at];
}

/* One head's scores [PIECE] -> its weights, zero behind the last token; the head's sums so far are brought to the new
 * peak. */
INLINE void weigh(float *scores, int tokens, float *peak, float *total, float *sums, int64_t latent) {
    float new_peak = *peak;
    for (int token = 0; token < tokens; token++)
        new_peak = scores[token] > new_peak ? scores[token] : new_peak;
    for (int token = tokens; token < PIECE; token++)
        scores[token] = new_peak;
    Lanes added = {0};
    for (int token = 0; token < PIECE; token += LANES) {
        Lanes weight = exp_of(load(scores + token) - new_peak);
        for (int lane = 0; lane < LANES; lane++)
            weight[lane] = token + lane < tokens ? weight[lane] : 0.0f;
        added += weight;
        store(scores + token, weight);
    }
    float kept = expf(*peak - new_peak);
    *total = *total * kept + sum_of(added);
    *peak = new_peak;
    if (kept != 1.0f)
        for (int64_t at = 0; at < latent; at++)
            sums[at] *= kept;
}

/* Some heads of one sequence: online softmax (arXiv 1805.02867) over the pieces of its context, each of which stays in
 * the cache for all heads. */
FOR_EACH_CPU
void attend(const float *queries, int64_t head_stride, int64_t heads, const float *all_rows, int64_t row_stride,
            const int32_t *pages, int64_t page_tokens, int64_t context, int64_t latent, int64_t width, float scale,
            float *output) {
    float peaks[MAX_HEADS], totals[MAX_HEADS], weights[HEADS * PIECE];
    const float *rows[PIECE];
    memset(output, 0, heads * latent * sizeof *output);
    for (int64_t head = 0; head < heads; head++) {
        peaks[head] = -INFINITY;
        totals[head] = 0.0f;
    }
    for (int64_t start = 0; start < context; start += PIECE) {
        int tokens = context - start < PIECE ? (int)(context - start) : PIECE;
        for (int token = 0; token < tokens; token++) {
            int64_t place = start + token;
            rows[token] = all_rows + (pages[place / page_tokens] * page_tokens + place % page_tokens) * row_stride;
        }
        for (int64_t first = 0; first < heads; first += HEADS) {
            int together = heads - first < HEADS ? (int)(heads - first) : HEADS;
            const float *of_heads[HEADS]; /* always as many: the first once more in the place of one too few */
            for (int head = 0; head < HEADS; head++)
                of_heads[head] = queries + (first + (head < together ? head : 0)) * head_stride;
            score(of_heads, rows, tokens, width, scale, weights);
            for (int head = 0; head < together; head++)
                weigh(weights + head * PIECE, tokens, &peaks[first + head], &totals[first + head],
                      output + (first + head) * latent, latent);
            add_values(weights, together, rows, tokens, latent, output + first * latent);
        }
    }
    for (int64_t head = 0; head < heads; head++)
        for (int64_t at = 0; at < latent; at++)
            output[head * latent + at] = totals[head] > 0.0f ? output[head * latent + at] / totals[head] : 0.0f;
}

/* `heads_of_task`: at most MAX_HEADS; as many as there are where there are sequences for all threads. */
void paged_latent_decode(const float *queries, int64_t sequence_stride, int64_t head_stride, int64_t sequences,
                         int64_t num_heads, int64_t heads_of_task, const float *rows, int64_t row_stride,
                         const int32_t *page_table, int64_t table_stride, const int32_t *contexts, int64_t page_tokens,
                         int64_t latent, int64_t width, float scale, float *output) {
    int64_t parts = (num_heads + heads_of_task - 1) / heads_of_task;
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < sequences * parts; task++) {
        int64_t sequence = task / parts, first = task % parts * heads_of_task;
        int64_t heads = num_heads - first < heads_of_task ? num_heads - first : heads_of_task;
        attend(queries + sequence * sequence_stride + first * head_stride, head_stride, heads, rows, row_stride,
               page_table + sequence * table_stride, page_tokens, contexts[sequence], latent, width, scale,
               output + (sequence * num_heads + first) * latent);
    }
}
