"""Absorbed MLA attention of decoding sequences over the paged cache on a CPU: by our C (`paged_latent_decode.c`).

Reads contexts where they lie; in plain PyTorch they are copied out of the cache first, as wide as the widest of them.
Shapes: B sequences, H heads, L latent width, W row width, S slots, P pages of the longest context.
"""

import ctypes
import functools

import torch
from torch import Tensor

from model.native import has_symbol, load

_MAX_HEADS, _HEADS = 64, 4
"""As in the C: of one task, and worked on at once."""


def is_available(device: torch.device, dtype: torch.dtype) -> bool:
    """Float32 on a CPU, where the C was built, and PyTorch brings an OpenMP runtime of GNU's for its threads."""
    return device.type == "cpu" and dtype == torch.float32 and _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("_paged_latent_decode", beside=__file__) if has_symbol("GOMP_parallel") else None
    if library is not None:
        address, size = ctypes.c_void_p, ctypes.c_int64
        library.paged_latent_decode.argtypes = (
            *(address, size, size, size, size, size),
            *(address, size, address, size, address, size, size, size, ctypes.c_float, address),
        )
        library.paged_latent_decode.restype = None
    return library


def paged_latent_decode(
    queries_BHW: Tensor,
    rows_SW: Tensor,
    page_table_BP: Tensor,
    context_lens_B: Tensor,
    *,
    page_tokens: int,
    latent_width: int,
    scale: float,
) -> Tensor:
    """As the kernel for GPUs (`model.kernels.paged_latent_decode`), for float32 and rows of any width; a sequence's
    result is the same bits whatever else is in the batch, and whatever the number of threads."""
    (num_sequences, num_heads, row_width), library = queries_BHW.shape, _library()
    assert library is not None
    assert queries_BHW.dtype == rows_SW.dtype == torch.float32, (queries_BHW.dtype, rows_SW.dtype)
    assert page_table_BP.dtype == context_lens_B.dtype == torch.int32, (page_table_BP.dtype, context_lens_B.dtype)
    assert rows_SW.shape[1] == row_width, (rows_SW.shape, queries_BHW.shape)
    assert len(page_table_BP) == len(context_lens_B) == num_sequences, (page_table_BP.shape, context_lens_B.shape)
    for tensor in (queries_BHW, rows_SW, page_table_BP, context_lens_B):
        assert tensor.stride(-1) == 1, tensor.stride()
    output_BHL = queries_BHW.new_empty(num_sequences, num_heads, latent_width)
    # All heads of a sequence read its rows while they are near; where sequences are few, its heads are shared out.
    heads_of_task = min(num_heads, _MAX_HEADS) if num_sequences >= torch.get_num_threads() else _HEADS
    library.paged_latent_decode(
        *(queries_BHW.data_ptr(), *queries_BHW.stride()[:2], num_sequences, num_heads, heads_of_task),
        *(rows_SW.data_ptr(), rows_SW.stride(0), page_table_BP.data_ptr(), page_table_BP.stride(0)),
        *(context_lens_B.data_ptr(), page_tokens, latent_width, row_width, scale, output_BHL.data_ptr()),
    )
    return output_BHL
