"""Absorbed MLA attention of decoding sequences over the paged cache, without gathering it: a Triton kernel.

One program reads a piece of one sequence's rows once, for a tile of heads; partial results of the pieces are merged by
a second kernel. Shapes are all the host needs to know, so a CUDA graph may hold the launch, and a sequence's result is
the same bits whatever else is in the batch. The plain PyTorch twin is `paged_latent_decode_reference`.
Shapes: B sequences, H heads, L latent width, R rotated width, W = L + R, S slots, P pages of the longest context.
"""

import functools
import importlib.util
import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SPLITS = 8
"""Programs per sequence and tile of heads. Bounds the float32 scratch, B * H * MAX_SPLITS * L (67 MB at B=256, H=16,
L=512), and the programs that a wide page table launches for nothing beside short contexts."""

_DTYPES = (torch.bfloat16, torch.float32)


def is_available(device: torch.device) -> bool:
    """Whether `paged_latent_decode` runs on tensors of this device; it needs triton, and a GPU or its interpreter."""
    return (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1") and _has_triton()


def takes(*, latent_width: int, rotated_width: int, dtype: torch.dtype) -> bool:
    """Whether the kernel is made for such rows: powers of two from 16 up, in bfloat16 or float32."""
    return _fits(latent_width) and _fits(rotated_width) and dtype in _DTYPES


def _fits(width: int) -> bool:
    return width >= 16 and not width & (width - 1)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@dataclass(frozen=True, kw_only=True)
class DecodeBlocks:
    """How the work is cut. All but `num_warps` and `num_stages` can change the last bits of a result."""

    heads: int
    """Heads of one program, padded to what a tensor core takes: a power of two, at least 16."""
    tokens: int = 32
    """Context rows of one iteration; a power of two, at least 16."""
    split_tokens: int = 256
    """Context rows of one program, about; more only where a sequence would otherwise have over MAX_SPLITS programs.
    A split costs 2 * heads * L * 4 bytes of partial results, 22 % of the 256 rows it reads with 16 heads and bf16,
    and most of that stays in the L2 cache; without splits 64 sequences would leave half of 132 SMs idle."""
    num_warps: int
    num_stages: int

    @classmethod
    def choose(cls, num_heads: int, dtype: torch.dtype) -> "DecodeBlocks":
        """For rows 576 wide, by what the compiler reports for sm_90 (shared memory, registers), not by timings.

        bfloat16: 3 stages are two row buffers of 36 KB, one in flight while the other is in use. With 16 heads a
        program takes 91 KB and under 200 registers, so an SM holds two; with 32 heads 8 warps keep the accumulator
        [32, L] out of local memory, at 110 KB. float32 is for checking: exact products on 8 warps, one buffer.
        """
        heads = 16 if num_heads <= 16 else 32
        if dtype == torch.float32:
            return cls(heads=heads, num_warps=8, num_stages=1)
        return cls(heads=heads, num_warps=heads // 4, num_stages=3)


def paged_latent_decode(
    queries_BHW: Tensor,
    rows_SW: Tensor,
    page_table_BP: Tensor,
    context_lens_B: Tensor,
    *,
    page_tokens: int,
    latent_width: int,
    scale: float,
    blocks: DecodeBlocks | None = None,
) -> Tensor:
    """Attends with one query per sequence and head to the sequence's rows; returns [B, H, L] in the queries' dtype.

    queries_BHW, rows_SW: bfloat16 or float32, the same; a query is [absorbed L | rotated R], a row [normalised kv
    latent L | rotated key R], shared by all heads. Values are the rows' first L entries. Only the last dimension must
    be contiguous. page_table_BP, int32: token t lies in slot page_table[t // page_tokens] * page_tokens + t %
    page_tokens. context_lens_B, int32, at most P * page_tokens; neither entries nor rows past it are read, and a length
    of 0 gives zeros. Scores are multiplied by `scale`; softmax and sums are float32. `blocks`: how the work is cut,
    where `DecodeBlocks.choose` is not to say it.

    The caller sees to it that lengths and pages are within bounds: checking them would wait for the device.
    Raises ValueError for widths that are not powers of two from 16 up, and for other dtypes.
    """
    from model.kernels import paged_latent_decode_triton as kernels

    blocks = blocks or DecodeBlocks.choose(queries_BHW.shape[1], queries_BHW.dtype)
    _check(queries_BHW, rows_SW, page_table_BP, context_lens_B, latent_width)
    (num_sequences, num_heads, row_width), num_pages = queries_BHW.shape, page_table_BP.shape[1]
    output_BHL = queries_BHW.new_empty(num_sequences, num_heads, latent_width)
    if num_sequences == 0:
        return output_BHL
    num_splits = min(MAX_SPLITS, -(-num_pages * page_tokens // blocks.split_tokens))
    lse_BHN = queries_BHW.new_empty(num_sequences, num_heads, num_splits, dtype=torch.float32)
    attended_BHNL = lse_BHN.new_empty(*lse_BHN.shape, latent_width)
    cut = {"BLOCK_TOKENS": blocks.tokens, "SPLIT_TOKENS": blocks.split_tokens, "MAX_SPLITS": MAX_SPLITS}
    with torch.cuda.device_of(queries_BHW):  # triton launches on the current device, whatever the tensors'
        kernels.attend_splits[(-(-num_heads // blocks.heads), num_sequences, num_splits)](
            queries_BHW,
            rows_SW,
            page_table_BP,
            context_lens_B,
            attended_BHNL,
            lse_BHN,
            queries_BHW.stride(0),
            queries_BHW.stride(1),
            rows_SW.stride(0),
            page_table_BP.stride(0),
            scale * math.log2(math.e),
            NUM_HEADS=num_heads,
            L=latent_width,
            R=row_width - latent_width,
            PAGE_TOKENS=page_tokens,
            BLOCK_HEADS=blocks.heads,
            num_warps=blocks.num_warps,
            num_stages=blocks.num_stages,
            **cut,
        )
        kernels.merge_splits[(num_heads, num_sequences)](
            attended_BHNL, lse_BHN, context_lens_B, output_BHL, num_splits, NUM_HEADS=num_heads, L=latent_width, **cut
        )
    return output_BHL


def _check(
    queries_BHW: Tensor, rows_SW: Tensor, page_table_BP: Tensor, context_lens_B: Tensor, latent_width: int
) -> None:
    num_sequences, _, row_width = queries_BHW.shape
    for name, width in (("latent", latent_width), ("rotated", row_width - latent_width)):
        if not _fits(width):
            raise ValueError(f"the kernel takes {name} widths that are powers of two from 16 up, not {width}")
    if queries_BHW.dtype not in _DTYPES:
        raise ValueError(f"the kernel takes bfloat16 and float32, not {queries_BHW.dtype}")
    assert rows_SW.dtype == queries_BHW.dtype, (rows_SW.dtype, queries_BHW.dtype)
    assert rows_SW.shape[1] == row_width, (rows_SW.shape, queries_BHW.shape)
    assert len(page_table_BP) == len(context_lens_B) == num_sequences, (page_table_BP.shape, context_lens_B.shape)
    assert page_table_BP.shape[1] > 0, page_table_BP.shape
    assert page_table_BP.dtype == context_lens_B.dtype == torch.int32, (page_table_BP.dtype, context_lens_B.dtype)
    for tensor in (queries_BHW, rows_SW, page_table_BP, context_lens_B):
        assert tensor.stride(-1) == 1, tensor.stride()
