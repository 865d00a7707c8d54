"""Decoding sequences of one step -> hidden states, out of buffers that stay in place: a CUDA graph can hold it.

A step is padded to one of a few sizes; each size is captured when it first comes, and replayed from then on. Padding
rows are tokens of nobody: each attends to itself alone, in the cache's scratch page. Knows nothing of requests or of
sampling. Shapes: B rows of a padded step, P pages of the widest context it may have, X int32 values that describe a
step, D width.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.kv_cache import PAGE_TOKENS, PagedKVCache, pages_for
from model.language_model import DecoderLayer, LanguageModel
from model.moe import MoE
from model.step_layout import DecodeRows, SequenceStep, StepLayout, write_page_table

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Work -> what does the same work again, on whatever the buffers hold by then."""

NARROWEST_TABLE_PAGES = 32
"""Where contexts are copied out of the cache, tables are as wide as this or a power of two times it: up to half of what
is copied is for nothing, and a batch size has few graphs (4 for 4,096 tokens)."""


def can_capture(language: LanguageModel) -> bool:
    """Whether a decode step on this model's device never makes the host wait, which a capture forbids."""
    experts = [layer.mlp.experts for layer in language.layers if isinstance(layer.mlp, MoE)]
    return language.embed_tokens.weight.is_cuda and not any(one.waits_for_device for one in experts)


def padded_batch_sizes(max_num_sequences: int) -> tuple[int, ...]:
    """1, 2, 4, multiples of 8, and the most there can be: a row that is padding costs little, a graph some memory."""
    sizes = [1, 2, 4, *range(8, max_num_sequences, 8)]
    return (*[size for size in sizes if size < max_num_sequences], max_num_sequences)


def table_widths(max_pages: int) -> tuple[int, ...]:
    """Powers of two times `NARROWEST_TABLE_PAGES`, and the most there can be."""
    widths = [NARROWEST_TABLE_PAGES]
    while widths[-1] < max_pages:
        widths.append(2 * widths[-1])
    return (*widths[:-1], max_pages)


class CudaGraphCapture:
    """Records work as CUDA graphs that share one memory pool: they never run at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Does the work once, for what must not happen in a capture (kernels are compiled, libraries take their
        workspace), then records it. What it writes to memory of its own is lost; results go to buffers of the caller.
        """
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Of this thread alone: others may go on using the device.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        return graph.replay


@dataclass(frozen=True, kw_only=True)
class _StepInputs:
    """int32 views of one flat buffer that holds all that the host says of a padded step: it is copied as one.

    is_token_B: 1, and 0 for padding. The rest is as in `StepLayout` and `DecodeRows`.
    """

    token_ids_B: Tensor
    positions_B: Tensor
    slots_B: Tensor
    context_lens_B: Tensor
    is_token_B: Tensor
    page_table_BP: Tensor

    @classmethod
    def over(cls, flat_X: Tensor, batch: int, width: int) -> "_StepInputs":
        fields, table = flat_X[: 5 * batch].view(5, batch), flat_X[5 * batch : cls.size(batch, width)]
        token_ids, positions, slots, context_lens, is_token = fields
        return cls(
            token_ids_B=token_ids,
            positions_B=positions,
            slots_B=slots,
            context_lens_B=context_lens,
            is_token_B=is_token,
            page_table_BP=table.view(batch, width),
        )

    @staticmethod
    def size(batch: int, width: int) -> int:
        return batch * (5 + width)

    def fill(self, token_ids: np.ndarray, steps: Sequence[SequenceStep], scratch_page: int) -> None:
        """Writes the steps to the first rows of zeros, and padding to the others."""
        num_tokens = len(steps)
        self.token_ids_B.numpy()[:num_tokens] = token_ids
        self.positions_B.numpy()[:num_tokens] = [step.start for step in steps]
        self.slots_B.numpy()[:num_tokens] = [step.first_slot for step in steps]
        self.slots_B.numpy()[num_tokens:] = scratch_page * PAGE_TOKENS
        self.context_lens_B.numpy()[:num_tokens] = [step.end for step in steps]
        self.context_lens_B.numpy()[num_tokens:] = 1
        self.is_token_B.numpy()[:num_tokens] = 1
        write_page_table(self.page_table_BP.numpy(), steps)
        self.page_table_BP.numpy()[num_tokens:, 0] = scratch_page

    def layout(self) -> StepLayout:
        """The step as the model reads it, all of it computed on the device from these views."""
        batch, width = self.page_table_BP.shape
        return StepLayout(
            positions_T=self.positions_B.long(),
            prefill=(),
            new_slots_T=self.slots_B.long(),
            decode=DecodeRows(
                page_table_BP=self.page_table_BP, context_lens_B=self.context_lens_B, num_pages=[width] * batch
            ),
            is_token_T=self.is_token_B.bool(),
        )


class DecodeRunner:
    """Runs decode steps of at most `max_num_sequences` sequences over one cache.

    capture: how a padded step is recorded, `CudaGraphCapture` on a GPU; None: it is computed anew each time.
    """

    def __init__(
        self, language: LanguageModel, cache: PagedKVCache, *, max_num_sequences: int, capture: Capture | None
    ) -> None:
        self._language, self._cache, self._capture = language, cache, capture
        max_pages = min(cache.num_pages, pages_for(language.config.max_position_embeddings))
        first = language.layers[0]  # the others attend like it
        assert isinstance(first, DecoderLayer)
        # A kernel that reads the cache in place does not read what lies past a context: one width serves all.
        self._widths = (max_pages,) if first.self_attn.reads_pages(cache.layer(0)) else table_widths(max_pages)
        self._batch_sizes = padded_batch_sizes(max_num_sequences)
        weight = language.embed_tokens.weight
        self._inputs_X = torch.zeros(
            _StepInputs.size(max_num_sequences, max_pages), dtype=torch.int32, device=weight.device
        )
        self._hidden_BD = weight.new_zeros(max_num_sequences, weight.shape[1])
        self._replays: dict[tuple[int, int], Callable[[], None]] = {}

    @property
    def captured_sizes(self) -> list[tuple[int, int]]:
        """(rows, pages of the table) of the steps captured so far."""
        return list(self._replays)

    def run(self, token_ids: np.ndarray, steps: Sequence[SequenceStep]) -> Tensor:
        """[len(steps), D]: hidden states after the final norm, in a buffer that the next run overwrites.

        token_ids: int64, one new token of each sequence. Raises RuntimeError where a size that comes for the first time
        cannot be captured.
        """
        batch = _smallest(self._batch_sizes, len(steps))
        width = _smallest(self._widths, pages_for(max(step.end for step in steps)))
        if self._capture is not None and (batch, width) not in self._replays:
            self._record(self._capture, batch, width)
        self._copy_in(batch, width, token_ids, steps)
        self._replays.get((batch, width), lambda: self._compute(batch, width))()
        return self._hidden_BD[: len(steps)]

    def _record(self, capture: Capture, batch: int, width: int) -> None:
        """On padding alone: the step itself must neither be written nor counted twice."""
        self._copy_in(batch, width, np.empty(0, dtype=np.int64), [])
        try:
            self._replays[batch, width] = capture(lambda: self._compute(batch, width))
        except RuntimeError as error:
            raise RuntimeError(
                f"a decode step of {batch} rows and {width} pages could not be captured ({error}); "
                "EngineConfig(cuda_graphs=False) does without"
            ) from error

    def _copy_in(self, batch: int, width: int, token_ids: np.ndarray, steps: Sequence[SequenceStep]) -> None:
        size = _StepInputs.size(batch, width)
        host_X = torch.zeros(size, dtype=torch.int32, pin_memory=self._inputs_X.is_cuda)
        _StepInputs.over(host_X, batch, width).fill(token_ids, steps, self._cache.scratch_page)
        self._inputs_X[:size].copy_(host_X, non_blocking=True)

    @torch.inference_mode()
    def _compute(self, batch: int, width: int) -> None:
        inputs = _StepInputs.over(self._inputs_X, batch, width)
        embeds_BD = self._language.embed_tokens(inputs.token_ids_B.long())
        self._hidden_BD[:batch] = self._language(embeds_BD, inputs.layout(), self._cache)


def _smallest(sizes: Sequence[int], wanted: int) -> int:
    """The smallest of ascending sizes that holds what is wanted."""
    assert wanted <= sizes[-1], (wanted, sizes)
    return sizes[bisect.bisect_left(sizes, wanted)]
