# mypy: disable-error-code="no-untyped-def"
"""The Triton kernels of `model.kernels.paged_latent_decode`, which is the only importer: this file needs triton.

Flash-decoding (Dao et al. 2023): `attend_splits` works on pieces of each context independently and keeps a
log-sum-exp per piece, `merge_splits` weighs the pieces by it. Logarithms are to base 2, for exp2 is what the
hardware has. Parameters that end in `_ptr` are tensors, annotated ones compile-time constants.
"""

import triton
import triton.language as tl

WIDEN_DOTS = tl.constexpr(triton.knobs.runtime.interpret)
"""Triton's interpreter keeps bfloat16 as uint16, and its dot multiplies those; as float32 the products are the same."""


@triton.jit
def dot(a, b, accumulator):
    if WIDEN_DOTS:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision="ieee")


@triton.jit
def split_width(context_len, BLOCK_TOKENS: tl.constexpr, SPLIT_TOKENS: tl.constexpr, MAX_SPLITS: tl.constexpr):
    """Tokens per split: a function of the sequence's own length, so that no neighbour in the batch moves a boundary.

    Splits are of about equal length, whole blocks, and at most MAX_SPLITS; the last may come out shorter or empty.
    """
    num_splits = tl.minimum(tl.maximum(tl.cdiv(context_len, SPLIT_TOKENS), 1), MAX_SPLITS)
    return tl.cdiv(tl.cdiv(context_len, num_splits), BLOCK_TOKENS) * BLOCK_TOKENS


@triton.jit(do_not_specialize=["page_table_stride"])
def attend_splits(
    queries_ptr,
    rows_ptr,
    page_table_ptr,
    context_lens_ptr,
    attended_ptr,
    lse_ptr,
    query_stride_b,
    query_stride_h,
    row_stride,
    page_table_stride,
    scale_log2,
    NUM_HEADS: tl.constexpr,
    L: tl.constexpr,
    R: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    SPLIT_TOKENS: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
):
    """Writes attended [B, H, splits, L] and lse [B, H, splits], float32, of the splits that hold tokens.

    Grid (head tiles, B, splits). Programs start in the order of the grid, so the splits past the end of short
    contexts, which return at once, come last.
    """
    sequence = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    context_len = tl.load(context_lens_ptr + sequence)
    width = split_width(context_len, BLOCK_TOKENS, SPLIT_TOKENS, MAX_SPLITS)
    start = split * width
    end = tl.minimum(start + width, context_len)
    if start >= end:
        return

    heads = tl.program_id(0) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    is_head = heads < NUM_HEADS
    latent_columns = tl.arange(0, L)
    key_columns = L + tl.arange(0, R)
    query_ptrs = queries_ptr + sequence * query_stride_b + heads[:, None] * query_stride_h
    # 576 is no power of two: latent and rotated part are tiles, and dots, of their own.
    query_HL = tl.load(query_ptrs + latent_columns[None, :], mask=is_head[:, None], other=0.0)
    query_HR = tl.load(query_ptrs + key_columns[None, :], mask=is_head[:, None], other=0.0)

    largest_H = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
    total_H = tl.zeros([BLOCK_HEADS], tl.float32)
    attended_HL = tl.zeros([BLOCK_HEADS, L], tl.float32)
    page_table_ptr += sequence * page_table_stride
    tokens = start + tl.arange(0, BLOCK_TOKENS)
    pages = tl.load(page_table_ptr + tokens // PAGE_TOKENS, mask=tokens < end, other=0)
    for _ in range(start, end, BLOCK_TOKENS):
        # What is masked is neither read as an address nor as a value: the unused tail of a page may hold NaN, and
        # a weight of zero would not silence it.
        in_context = tokens < end
        slots = pages.to(tl.int64) * PAGE_TOKENS + tokens % PAGE_TOKENS
        row_ptrs = rows_ptr + slots[:, None] * row_stride
        latent_NL = tl.load(row_ptrs + latent_columns[None, :], mask=in_context[:, None], other=0.0)
        key_NR = tl.load(row_ptrs + key_columns[None, :], mask=in_context[:, None], other=0.0)
        # The next block's pages: loaded where they are needed, they would be a stage of the pipeline of their own.
        tokens += BLOCK_TOKENS
        pages = tl.load(page_table_ptr + tokens // PAGE_TOKENS, mask=tokens < end, other=0)

        scores_HN = dot(query_HL, tl.trans(latent_NL), tl.zeros([BLOCK_HEADS, BLOCK_TOKENS], tl.float32))
        scores_HN = dot(query_HR, tl.trans(key_NR), scores_HN)
        scores_HN = tl.where(in_context[None, :], scores_HN * scale_log2, float("-inf"))
        larger_H = tl.maximum(largest_H, tl.max(scores_HN, 1))
        shrink_H = tl.exp2(largest_H - larger_H)
        weights_HN = tl.exp2(scores_HN - larger_H[:, None])
        total_H = total_H * shrink_H + tl.sum(weights_HN, 1)
        attended_HL = dot(weights_HN.to(latent_NL.dtype), latent_NL, attended_HL * shrink_H[:, None])
        largest_H = larger_H

    split_rows = (sequence * NUM_HEADS + heads) * tl.num_programs(2) + split
    tl.store(lse_ptr + split_rows, largest_H + tl.log2(total_H), mask=is_head)
    tl.store(
        attended_ptr + split_rows[:, None] * L + latent_columns[None, :],
        attended_HL / total_H[:, None],
        mask=is_head[:, None],
    )


@triton.jit(do_not_specialize=["num_splits"])
def merge_splits(
    attended_ptr,
    lse_ptr,
    context_lens_ptr,
    output_ptr,
    num_splits,
    NUM_HEADS: tl.constexpr,
    L: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    SPLIT_TOKENS: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
):
    """Writes output [B, H, L], contiguous: zeros where the context is empty. Grid (H, B)."""
    head, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64)
    context_len = tl.load(context_lens_ptr + sequence)
    width = split_width(context_len, BLOCK_TOKENS, SPLIT_TOKENS, MAX_SPLITS)
    own_splits = tl.cdiv(context_len, tl.maximum(width, 1))
    columns = tl.arange(0, L)
    row = sequence * NUM_HEADS + head
    largest = float("-inf")
    total = 0.0
    merged_L = tl.zeros([L], tl.float32)
    # One split after another: a sum over a padded vector of splits could round differently where the table is wider.
    for split in range(own_splits):
        lse = tl.load(lse_ptr + row * num_splits + split)
        attended_L = tl.load(attended_ptr + (row * num_splits + split) * L + columns)
        larger = tl.maximum(largest, lse)
        shrink = tl.exp2(largest - larger)
        weight = tl.exp2(lse - larger)
        total = total * shrink + weight
        merged_L = merged_L * shrink + attended_L * weight
        largest = larger
    output_L = merged_L / tl.where(own_splits > 0, total, 1.0)
    tl.store(output_ptr + row * L + columns, output_L.to(output_ptr.dtype.element_ty))
