"""Waiting and running sequences -> one packed step after another: continuous batching with chunked prefill.

Every step takes one token of each decoding sequence and up to `prefill_chunk_tokens` prompt tokens of the others, so
a long prompt never holds up short answers. A sequence is admitted when the cache has pages for its whole length:
admitted sequences always finish. Knows nothing of threads. Shapes: T tokens of a step, B sequences that sample, D.
"""

import contextlib
from collections import deque
from concurrent.futures import InvalidStateError
from dataclasses import dataclass

import torch
from torch import Tensor

from model.deepseek_vl2 import DeepseekVL2
from model.kv_cache import PagedKVCache, SequenceStep, pack_step, pages_for
from model.prompt import Processor
from model.sampler import sample
from model.sequence import Completion, FinishReason, Sequence, fail


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """The tokens one sequence adds in this step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def samples(self) -> bool:
        return self.end >= self.sequence.num_prompt_tokens

    @property
    def step(self) -> SequenceStep:
        return SequenceStep(pages=self.sequence.pages, start=self.start, end=self.end)


class Scheduler:
    def __init__(
        self,
        model: DeepseekVL2,
        processor: Processor,
        *,
        max_num_sequences: int,
        prefill_chunk_tokens: int,
        cache_tokens: int,
    ) -> None:
        self.model, self.processor = model, processor
        self.max_num_sequences, self.prefill_chunk_tokens = max_num_sequences, prefill_chunk_tokens
        self.cache = PagedKVCache(
            model.config.language, num_pages=pages_for(cache_tokens), dtype=model.dtype, device=model.device
        )
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    @torch.inference_mode()
    def step(self) -> None:
        """Runs one forward pass; finished sequences get their completion.

        Raises whatever the pass raised; the sequences in it are as good as lost then (see `fail_running`).
        """
        self._drop_cancelled()
        self._admit()
        prefill, decode = self._plan()
        if not prefill and not decode:
            return
        layout = pack_step([chunk.step for chunk in prefill], [chunk.step for chunk in decode], self.model.device)
        hidden_TD = self.model.language(self._embed(prefill, decode), layout, self.cache)
        self._sample(hidden_TD, [*prefill, *decode])

    def fail_running(self, error: BaseException) -> None:
        """Gives up the sequences of a step that raised, e.g. out of memory; those that wait are tried after them."""
        if not self.running:  # it was none of them, so it would be raised again and again
            self.fail_all(error)
        for sequence in list(self.running):
            self._retire(sequence)
            fail(sequence.future, error)

    def fail_all(self, error: BaseException) -> None:
        """Gives every sequence up with the same error."""
        given_up = [*self.running, *self.waiting]
        self.waiting.clear()
        for sequence in list(self.running):
            self._retire(sequence)
        for sequence in given_up:
            fail(sequence.future, error)

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in self.running if s.future.cancelled()]:
            self._retire(sequence)
        self.waiting = deque(s for s in self.waiting if not s.future.cancelled())

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_num_sequences:
            sequence = self.waiting[0]
            num_pages = pages_for(
                min(sequence.num_prompt_tokens + sequence.params.max_new_tokens, sequence.max_total_tokens)
            )
            if num_pages > self.cache.num_free_pages:
                return  # first come, first served: a long request is not starved by short ones behind it
            self.waiting.popleft()
            try:
                sequence.prompt_embeds_TD = self.model.embed(sequence.prompt, sequence.image_sequence)
            except Exception as error:  # noqa: BLE001 - this request's own images; the others go on
                fail(sequence.future, error)
                continue
            sequence.pages = self.cache.allocate(num_pages)
            self.running.append(sequence)

    def _plan(self) -> tuple[list[_Chunk], list[_Chunk]]:
        budget, prefill, decode = self.prefill_chunk_tokens, [], []
        for sequence in self.running:
            start = sequence.num_cached_tokens
            if sequence.is_prefilled:
                decode.append(_Chunk(sequence=sequence, start=start, end=start + 1))
            elif budget > 0:
                end = min(sequence.num_prompt_tokens, start + budget)
                prefill.append(_Chunk(sequence=sequence, start=start, end=end))
                budget -= end - start
        return prefill, decode

    def _embed(self, prefill: list[_Chunk], decode: list[_Chunk]) -> Tensor:
        parts = []
        for chunk in prefill:
            assert chunk.sequence.prompt_embeds_TD is not None
            parts.append(chunk.sequence.prompt_embeds_TD[chunk.start : chunk.end])
        last_ids = [chunk.sequence.output_ids[-1] for chunk in decode]
        if last_ids:
            parts.append(self.model.language.embed_tokens(torch.tensor(last_ids, device=self.model.device)))
        return torch.cat(parts)

    def _sample(self, hidden_TD: Tensor, chunks: list[_Chunk]) -> None:
        last_rows, row = [], 0
        for chunk in chunks:
            row += chunk.end - chunk.start
            chunk.sequence.num_cached_tokens = chunk.end
            if chunk.samples:
                chunk.sequence.prompt_embeds_TD = None
                last_rows.append(row - 1)
        sampling = [chunk.sequence for chunk in chunks if chunk.samples]
        if not sampling:
            return
        tokens, logprobs = sample(self.model.language.logits(hidden_TD[last_rows]), sampling)
        stop_token_ids = self.processor.tokenizer.stop_token_ids
        for sequence, token, logprob in zip(sampling, tokens, logprobs, strict=True):
            reason = sequence.append(token, logprob, stop_token_ids)
            if reason is not None:
                self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._retire(sequence)
        completion = Completion(
            token_ids=list(sequence.output_ids),
            text=self.processor.decode(sequence.output_ids),
            finish_reason=reason,
            mean_logprob=sequence.sum_logprob / len(sequence.output_ids),
            num_prompt_tokens=sequence.num_prompt_tokens,
        )
        with contextlib.suppress(InvalidStateError):  # cancelled while it ran its last step
            sequence.future.set_result(completion)

    def _retire(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.release(sequence.pages)
        sequence.pages, sequence.prompt_embeds_TD = [], None
