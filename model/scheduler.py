"""Waiting and running sequences -> one packed step after another: continuous batching with chunked prefill.

Every step takes the next token of each decoding sequence and up to `prefill_chunk_tokens` tokens of prompts and shared
prefixes, the short ones first, so that a long prompt never holds up short answers. Knows nothing of threads. Shapes: T
tokens of a step, B sequences that sample, D.
"""

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.admission import Admission
from model.decode_graphs import CudaGraphCapture, DecodeRunner, can_capture
from model.deepseek_vl2 import DeepseekVL2
from model.engine_stats import StatsRecorder
from model.kv_cache import PagedKVCache, pages_for
from model.prompt import Processor
from model.sampler import sample
from model.sequence import Completion, FinishReason, ImagePrefix, Sequence, TokenRun, deliver, fail
from model.step_layout import SequenceStep, pack_step
from model.transfers import to_device

OLDEST_SHARE = 4
"""One part in so many of a step's prompt tokens goes to the oldest prompt, so that short ones never starve it."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The tokens one sequence or prefix adds in this step."""

    run: TokenRun
    start: int
    end: int

    @property
    def sampling(self) -> Sequence | None:
        """The sequence whose next token this chunk decides."""
        return self.run if isinstance(self.run, Sequence) and self.end == self.run.num_tokens else None

    @property
    def step(self) -> SequenceStep:
        return SequenceStep(pages=self.run.pages, start=self.start, end=self.end)


class Scheduler:
    def __init__(
        self,
        model: DeepseekVL2,
        processor: Processor,
        *,
        max_num_sequences: int,
        prefill_chunk_tokens: int,
        cache_tokens: int,
        cuda_graphs: bool = True,
        has_peers: bool = False,
    ) -> None:
        """has_peers: other ranks step along, and need this one's experts in every step."""
        self.model, self.processor, self.has_peers = model, processor, has_peers
        self.prefill_chunk_tokens = prefill_chunk_tokens
        # One page more than the tokens need: a sequence goes on in a copy of the page that its prefix ends in.
        num_pages = pages_for(cache_tokens) + 1
        self.cache = PagedKVCache(model.config.language, num_pages=num_pages, dtype=model.dtype, device=model.device)
        self.admission = Admission(
            self.cache, max_num_sequences=max_num_sequences, max_prefix_tokens=prefill_chunk_tokens
        )
        self.decode_runner: DecodeRunner | None = None
        """Runs the steps that only decode; None: they run like the others."""
        if cuda_graphs and can_capture(model.language):
            self.decode_runner = DecodeRunner(
                model.language,
                self.cache,
                max_num_sequences=max_num_sequences,
                capture=CudaGraphCapture(model.device),
            )
        self.stats = StatsRecorder(max_num_sequences=max_num_sequences, num_cache_pages=num_pages)

    @property
    def is_idle(self) -> bool:
        return self.admission.is_idle

    @property
    def wants_more(self) -> bool:
        """Whether more sequences could run than there are."""
        return len(self.admission.running) + len(self.admission.waiting) < self.admission.max_num_sequences

    def add(self, sequence: Sequence) -> None:
        """Its images are encoded; those that are not as many as its prompt says fail it alone."""
        num_encoded = 0 if sequence.image_sequence is None else len(sequence.image_sequence)
        if num_encoded != int(sequence.prompt.image_mask.sum()):
            fail(sequence.future, AssertionError("image positions and image tokens differ in number"))
        else:
            self.admission.waiting.append(sequence)

    def close_prefix(self, prefix: ImagePrefix) -> None:
        self.admission.close(prefix)

    @torch.inference_mode()
    def step(self) -> None:
        """Runs one forward pass; finished sequences get their completion.

        Raises whatever the pass raised; the sequences in it are as good as lost then (see `fail_running`).
        """
        began = time.perf_counter()
        self._drop_cancelled()
        self.admission.admit()
        decode = self._decode_chunks()
        prefill = self._prefill_chunks()
        if not prefill and not decode:
            if self.has_peers:
                self.model.language.serve_experts()
            return
        chunks = [*prefill, *decode]
        hidden_TD = self._forward(prefill, decode)
        num_running, num_used_pages = len(self.admission.running), self.cache.num_used_pages
        for chunk in chunks:
            chunk.run.num_cached_tokens = chunk.end
        self.admission.finish_prefixes()
        self._sample(hidden_TD, chunks)
        self.stats.add_step(
            num_prefill_tokens=sum(chunk.end - chunk.start for chunk in prefill),
            num_decode_tokens=len(decode),
            num_running=num_running,
            num_used_pages=num_used_pages,
            step_s=time.perf_counter() - began,
        )

    def fail_running(self, error: BaseException) -> None:
        """Gives up the sequences of a step that raised, e.g. out of memory; those that wait are tried after them."""
        prefixes = set(self.admission.prefilling)
        self.admission.clear_prefilling()
        if not self.admission.running and not prefixes:  # it was none of them, so it would be raised again and again
            self.fail_all(error)
        for sequence in list(self.admission.running):
            self.admission.retire(sequence)
            fail(sequence.future, error)
        for sequence in [one for one in self.admission.waiting if one.prefix in prefixes]:
            self.admission.waiting.remove(sequence)
            fail(sequence.future, error)

    def fail_all(self, error: BaseException) -> None:
        """Gives every sequence up with the same error."""
        given_up = [*self.admission.running, *self.admission.waiting]
        self.admission.waiting.clear()
        self.admission.clear_prefilling()
        for sequence in list(self.admission.running):
            self.admission.retire(sequence)
        for sequence in given_up:
            fail(sequence.future, error)

    def _drop_cancelled(self) -> None:
        for sequence in [one for one in self.admission.running if one.future.cancelled()]:
            self.admission.retire(sequence)
        for sequence in [one for one in self.admission.waiting if one.future.cancelled()]:
            self.admission.waiting.remove(sequence)

    def _decode_chunks(self) -> list[Chunk]:
        """One token of every decoding sequence that finds a page for it; similar lengths together (see `pack_step`)."""
        for sequence in [one for one in self.admission.running if one.is_decoding]:
            if sequence in self.admission.running:  # growing may have cost a later one its place
                self.admission.grow(sequence)
        decoding = [one for one in self.admission.running if one.is_decoding]
        decoding.sort(key=lambda one: one.num_tokens)
        return [Chunk(run=one, start=one.num_cached_tokens, end=one.num_tokens) for one in decoding]

    def _prefill_chunks(self) -> list[Chunk]:
        running = [one for one in self.admission.running if not one.is_decoding]
        runs: list[TokenRun] = [*self.admission.prefilling, *running]
        granted = share_budget([run.num_missing_tokens for run in runs], self.prefill_chunk_tokens)
        return [
            Chunk(run=run, start=run.num_cached_tokens, end=run.num_cached_tokens + num_tokens)
            for run, num_tokens in zip(runs, granted, strict=True)
            if num_tokens
        ]

    def _forward(self, prefill: Seq[Chunk], decode: Seq[Chunk]) -> Tensor:
        """[T, D]: hidden states of the chunks' tokens; to be used before the next step."""
        prefill_steps, decode_steps = [chunk.step for chunk in prefill], [chunk.step for chunk in decode]
        if self.decode_runner is not None and not prefill:
            return self.decode_runner.run(_token_ids(decode), decode_steps)  # what is generated holds no images
        layout = pack_step(prefill_steps, decode_steps, self.model.device)
        return self.model.language(self._embed([*prefill, *decode]), layout, self.cache)

    def _embed(self, chunks: Seq[Chunk]) -> Tensor:
        """[T, D]: embeddings of the chunks' tokens, those of images at their places."""
        device = self.model.device
        embeds_TD = self.model.language.embed_tokens(to_device(_token_ids(chunks), device))
        row = 0
        for chunk in chunks:
            images = chunk.run.images(chunk.start, chunk.end)
            if images is not None:
                rows = to_device(row + np.flatnonzero(images[0]), device)
                embeds_TD[rows] = images[1].to(embeds_TD.dtype)
            row += chunk.end - chunk.start
        return embeds_TD

    def _sample(self, hidden_TD: Tensor, chunks: Seq[Chunk]) -> None:
        ends = np.cumsum([chunk.end - chunk.start for chunk in chunks])
        sampling = [(end - 1, chunk.sampling) for end, chunk in zip(ends, chunks, strict=True)]
        rows = [row for row, sequence in sampling if sequence is not None]
        sequences = [sequence for _, sequence in sampling if sequence is not None]
        if not rows:
            return
        if len(rows) < len(hidden_TD):
            hidden_TD = hidden_TD[to_device(rows, hidden_TD.device)]
        tokens, logprobs = sample(self.model.language.logits(hidden_TD), sequences)
        stop_token_ids = self.processor.tokenizer.stop_token_ids
        for sequence, token, logprob in zip(sequences, tokens, logprobs, strict=True):
            reason = sequence.append(token, logprob, stop_token_ids)
            if reason is not None:
                self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self.admission.retire(sequence)
        if sequence.stream is not None:
            sequence.stream.close()
        completion = Completion(
            token_ids=list(sequence.output_ids),
            text=self.processor.decode(sequence.output_ids),
            finish_reason=reason,
            mean_logprob=sequence.sum_logprob / len(sequence.output_ids),
            num_prompt_tokens=sequence.num_prompt_tokens,
        )
        deliver(sequence.future, completion)


def _token_ids(chunks: Seq[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.run.ids(chunk.start, chunk.end) for chunk in chunks])


def share_budget(missing: Seq[int], budget: int) -> list[int]:
    """How many tokens of a step each prompt gets: a share for the first, the oldest; the rest to the shortest."""
    granted = [0] * len(missing)
    if missing:
        granted[0] = min(missing[0], max(1, budget // OLDEST_SHARE))
    left = budget - sum(granted)
    for index in sorted(range(len(missing)), key=lambda index: missing[index]):
        more = min(missing[index] - granted[index], left)
        granted[index] += more
        left -= more
    return granted
