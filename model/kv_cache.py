"""Where the keys and values of sequences lie: rows of all layers, handed out in pages with reference counts.

One row per token and layer: with MLA the normalised kv latent followed by its rotated key (kv_lora_rank +
qk_rope_head_dim wide), with MHA all keys followed by all values. Sequences about the same images share the pages of
their common beginning. Knows nothing of requests. Shapes: S slots, W row width, L layers, P pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import LanguageConfig

PAGE_TOKENS = 16


def kv_row_width(config: LanguageConfig) -> int:
    if config.use_mla:
        return config.kv_lora_rank + config.qk_rope_head_dim
    return 2 * config.num_key_value_heads * config.head_dim


def pages_for(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_TOKENS)


class PagedKVCache:
    """Rows of all layers and how many sequences hold each page. Page tables belong to the sequences."""

    def __init__(self, config: LanguageConfig, *, num_pages: int, dtype: torch.dtype, device: torch.device) -> None:
        # One page more than is handed out: padding must be written somewhere.
        shape = (config.num_hidden_layers, (num_pages + 1) * PAGE_TOKENS, kv_row_width(config))
        self._rows_LSW = torch.zeros(shape, dtype=dtype, device=device)
        self.scratch_page = num_pages
        """Nobody's: where steps of a fixed size write and read the rows of their padding."""
        self._free = list(range(num_pages - 1, -1, -1))
        self._holders = [0] * num_pages
        self.num_pages = num_pages

    @property
    def num_free_pages(self) -> int:
        return len(self._free)

    @property
    def num_used_pages(self) -> int:
        return self.num_pages - len(self._free)

    @property
    def num_bytes(self) -> int:
        """Of the pages that are handed out."""
        return self._rows_LSW[:, : self.num_pages * PAGE_TOKENS].nbytes

    def allocate(self, num_pages: int) -> list[int]:
        """Takes pages off the free list; the caller has checked `num_free_pages`."""
        assert num_pages <= len(self._free), f"{num_pages} pages asked, {len(self._free)} free"
        pages = [self._free.pop() for _ in range(num_pages)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def share(self, pages: Sequence[int]) -> list[int]:
        """One more holder of pages that hold whole pages of a common beginning; they are written no more."""
        for page in pages:
            assert self._holders[page] > 0, f"page {page} is free"
            self._holders[page] += 1
        return list(pages)

    def release(self, pages: Sequence[int]) -> None:
        """Gives up one hold of each page; a page that nobody holds is free again."""
        for page in pages:
            assert self._holders[page] > 0, f"page {page} is free"
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)

    def copy_page(self, source: int, target: int) -> None:
        """All layers' rows of one page: a sequence that goes on from a page that another one half filled."""
        rows = self._rows_LSW.unflatten(1, (-1, PAGE_TOKENS))
        rows[:, target] = rows[:, source]

    def layer(self, index: int) -> "LayerCache":
        return LayerCache(self._rows_LSW[index])


@dataclass(frozen=True)
class LayerCache:
    """One layer's rows [S, W]."""

    rows: Tensor

    def write(self, slots_T: Tensor, rows_TW: Tensor) -> None:
        self.rows[slots_T] = rows_TW

    def read(self, pages: Tensor) -> Tensor:
        """Rows of whole pages; int64 [..., P] -> [..., P * PAGE_TOKENS, W]."""
        paged = self.rows.unflatten(0, (-1, PAGE_TOKENS))
        return paged[pages].flatten(-3, -2)


def kv_bytes_per_token(config: LanguageConfig, bytes_per_value: int) -> int:
    """Cache rows of all layers: latent and rotated key with MLA, keys and values with MHA."""
    if config.use_mla:
        width = config.kv_lora_rank + config.qk_rope_head_dim
    else:
        width = 2 * config.num_key_value_heads * config.head_dim
    return config.num_hidden_layers * width * bytes_per_value
