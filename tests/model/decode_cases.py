"""Decoding sequences over a paged cache, for kernels and their plain twin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.kernels.paged_latent_decode import DecodeBlocks
from model.kv_cache import PAGE_TOKENS

Kernel = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """Arguments of the kernel: one query per sequence, over contexts that lie on shuffled pages."""

    queries_BHW: Tensor
    rows_SW: Tensor
    page_table_BP: Tensor
    context_lens_B: Tensor
    latent_width: int

    def run(self, kernel: Kernel, **more: DecodeBlocks) -> Tensor:
        return kernel(
            self.queries_BHW,
            self.rows_SW,
            self.page_table_BP,
            self.context_lens_B,
            page_tokens=PAGE_TOKENS,
            latent_width=self.latent_width,
            scale=self.queries_BHW.shape[-1] ** -0.5,
            **more,
        )

    def only(self, sequence: int) -> "Case":
        """The sequence alone, on a page table no wider than its own context."""
        one = slice(sequence, sequence + 1)
        num_pages = -(-int(self.context_lens_B[sequence]) // PAGE_TOKENS)
        return replace(
            self,
            queries_BHW=self.queries_BHW[one],
            page_table_BP=self.page_table_BP[one, :num_pages].contiguous(),
            context_lens_B=self.context_lens_B[one],
        )

    def to(self, device: str) -> "Case":
        tensors = ("queries_BHW", "rows_SW", "page_table_BP", "context_lens_B")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def case(
    context_lens: Sequence[int],
    *,
    heads: int = 6,
    latent: int = 64,
    rotated: int = 16,
    dtype: torch.dtype = torch.float32,
    unused: float = torch.nan,
) -> Case:
    """Slots outside every context, page 0 among them, hold `unused`."""
    generator = torch.Generator().manual_seed(0)
    width = latent + rotated
    num_pages = [-(-length // PAGE_TOKENS) for length in context_lens]
    pages = (torch.randperm(sum(num_pages), generator=generator) + 1).tolist()
    page_table_BP = torch.zeros(len(context_lens), max(1, *num_pages), dtype=torch.int32)
    rows_SW = torch.full(((len(pages) + 1) * PAGE_TOKENS, width), unused, dtype=dtype)
    for sequence, length in enumerate(context_lens):
        own, pages = pages[: num_pages[sequence]], pages[num_pages[sequence] :]
        page_table_BP[sequence, : len(own)] = torch.tensor(own)
        tokens = torch.arange(length)
        slots = torch.tensor(own, dtype=torch.int64)[tokens // PAGE_TOKENS] * PAGE_TOKENS + tokens % PAGE_TOKENS
        rows_SW[slots] = torch.randn(length, width, generator=generator).to(dtype)
    return Case(
        queries_BHW=3 * torch.randn(len(context_lens), heads, width, generator=generator).to(dtype),
        rows_SW=rows_SW,
        page_table_BP=page_table_BP,
        context_lens_B=torch.tensor(context_lens, dtype=torch.int32),
        latent_width=latent,
    )


def assert_agree(kernel: Tensor, reference: Tensor) -> None:
    """Up to rounding: of the result, and with bfloat16 also of the softmax weights."""
    assert kernel.dtype == reference.dtype
    tolerance = 2e-5 if kernel.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(kernel.float(), reference.float(), rtol=tolerance, atol=tolerance)
