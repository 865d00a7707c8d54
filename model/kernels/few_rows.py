"""Products of few rows with large weights on a CPU, as in decoding: by our C (`few_rows.c`).

They are as fast as the weights are read, which the libraries behind PyTorch are far from for one row and for most
numbers of them. Shapes: T rows, I inputs, O outputs; of experts N rows, E experts, D width, I inner width, J = 2 I.
"""

import ctypes
import functools

import torch
from torch import Tensor

from model.native import has_symbol, load

MAX_ROWS = 32
"""Of a linear layer; from about there on PyTorch's product is as fast."""
MAX_ROWS_PER_EXPERT = 16
"""On average over all of them."""


def is_available() -> bool:
    """Whether the C was built, and PyTorch brings an OpenMP runtime of GNU's for its threads."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("_few_rows", beside=__file__) if has_symbol("GOMP_parallel") else None
    if library is not None:
        address, size = ctypes.c_void_p, ctypes.c_int64
        library.few_rows_linear.argtypes = (address, size, size, address, size, size, address)
        library.few_rows_linear.restype = None
        library.few_rows_experts.argtypes = (
            *(address, size, address, size, address, address, size, size),
            *(address, address, address),
        )
        library.few_rows_experts.restype = None
    return library


def takes_linear(x_TI: Tensor, weight_OI: Tensor) -> bool:
    return x_TI.dim() == 2 and len(x_TI) <= MAX_ROWS and _takes(x_TI, weight_OI)


def takes_experts(hidden_ND: Tensor, gate_up_EJD: Tensor, down_EDI: Tensor) -> bool:
    return (
        len(hidden_ND) <= MAX_ROWS_PER_EXPERT * len(down_EDI)
        and _takes(hidden_ND, gate_up_EJD)
        and _takes(hidden_ND, down_EDI)
    )


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.stride(-1) == 1
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and is_available()
    )


def linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """[T, O]: x times weight transposed; a row's values are the same bits whatever other rows there are, and whatever
    the number of threads."""
    library, (num_outputs, width) = _library(), weight_OI.shape
    assert library is not None
    assert x_TI.shape[1] == width, (x_TI.shape, weight_OI.shape)
    output_TO = x_TI.new_empty(len(x_TI), num_outputs)
    library.few_rows_linear(
        *(x_TI.data_ptr(), x_TI.stride(0), len(x_TI), weight_OI.data_ptr(), num_outputs, width, output_TO.data_ptr())
    )
    return output_TO


def experts(hidden_ND: Tensor, gate_up_EJD: Tensor, down_EDI: Tensor, offsets_E: Tensor) -> Tensor:
    """[N, D]: rows offsets[e-1]..offsets[e] through expert e, a SwiGLU; as for `linear`."""
    library, (num_experts, width, inner) = _library(), down_EDI.shape
    assert library is not None
    assert gate_up_EJD.shape == (num_experts, 2 * inner, width), (gate_up_EJD.shape, down_EDI.shape)
    assert offsets_E.dtype == torch.int32, offsets_E.dtype
    assert len(offsets_E) == num_experts, offsets_E.shape
    room = hidden_ND.new_empty(len(hidden_ND) * 3 * inner)
    output_ND = torch.empty_like(hidden_ND)
    inner_address = room.data_ptr() + len(hidden_ND) * 2 * inner * room.element_size()
    library.few_rows_experts(
        *(hidden_ND.data_ptr(), hidden_ND.stride(0), offsets_E.data_ptr(), num_experts),
        *(gate_up_EJD.data_ptr(), down_EDI.data_ptr(), width, inner),
        *(room.data_ptr(), inner_address, output_ND.data_ptr()),
    )
    return output_ND
