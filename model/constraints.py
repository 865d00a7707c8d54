"""Answers of a fixed form: which token ids may come next, so that whatever the weights are the answer can be parsed.

A spec says what is wanted and travels with the sampling parameters; `compile_constraint` makes the state of one answer
of it. Knows the forms, not who asks for them nor how a token is chosen. Shapes: N allowed ids, V logits.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from model.box_automaton import BoxAutomaton, start_of_list
from model.choice_automaton import ChoiceAutomaton
from model.constraint_specs import Choice, ConstraintSpec
from model.tokenizer import DET, DET_END, REF, REF_END, ChatTokenizer, Text
from model.transfers import to_device


class _Automaton(Protocol):
    """A set of texts, read token by token. States are its own business; `step` gives None where no text goes on so."""

    def step(self, state: Any, token_id: int) -> Any: ...
    def tokens_to_end(self, state: Any) -> int: ...
    def allowed_ids(self, state: Any, budget: int) -> np.ndarray: ...


class Constraint:
    """How far one answer is: the ids it opens with, a text out of an automaton, the ids that close it.

    Ask `allowed_ids`, choose one of them, `advance` by it, until `is_finished`. What is allowed can always be finished
    within the tokens that are left: where they get few, a list of boxes has to close, and a choice to be a short one.
    """

    def __init__(
        self,
        automaton: _Automaton,
        start: Any,
        *,
        opening_ids: Sequence[int] = (),
        closing_ids: Sequence[Sequence[int]],
        tokens_left: int,
    ) -> None:
        """`closing_ids` holds the alternatives of each token after the text. Raises ValueError for a small budget."""
        self._automaton, self._state = automaton, start
        self._opening = np.array(opening_ids, dtype=np.int64)
        self._closing = [np.array(ids, dtype=np.int64) for ids in closing_ids]
        self._num_opened = self._num_closed = 0
        self.tokens_left = tokens_left
        if self.tokens_to_finish() > tokens_left:
            raise ValueError(
                f"max_new_tokens is {tokens_left}, but the shortest answer may take {self.tokens_to_finish()} tokens, "
                f"{len(self._opening)} of them before and {len(self._closing)} after the text that is chosen"
            )

    @property
    def is_finished(self) -> bool:
        return self._num_closed == len(self._closing)

    def tokens_to_finish(self) -> int:
        """So many further tokens are enough for an answer of the wanted form, end of sentence included."""
        to_end = 0 if self._num_closed else self._automaton.tokens_to_end(self._state)
        return len(self._opening) - self._num_opened + to_end + len(self._closing) - self._num_closed

    def allowed_ids(self) -> np.ndarray:
        """int64 [N], distinct, in no particular order: the ids the next token may have; N = 0 only when finished."""
        if self._num_opened < len(self._opening):
            return self._opening[self._num_opened : self._num_opened + 1]
        if self.is_finished:
            return np.empty(0, dtype=np.int64)
        if self._num_closed:
            return self._closing[self._num_closed]
        ids_N = self._automaton.allowed_ids(self._state, self.tokens_left - 1 - len(self._closing))
        return ids_N if self._automaton.tokens_to_end(self._state) else np.concatenate([ids_N, self._closing[0]])

    def advance(self, token_id: int) -> None:
        """Takes the token that was chosen. Raises ValueError, and stays where it is, if it was not allowed."""
        if self._num_opened < len(self._opening):
            is_allowed = self._open(token_id)
        else:
            is_allowed = self._continue_text(token_id) or self._close(token_id)
        if not is_allowed:
            raise ValueError(f"token {token_id} is not allowed here; allowed are {self.allowed_ids()[:20].tolist()}")
        self.tokens_left -= 1

    def _open(self, token_id: int) -> bool:
        if token_id != self._opening[self._num_opened]:
            return False
        self._num_opened += 1
        return True

    def _continue_text(self, token_id: int) -> bool:
        state = None if self._num_closed else self._automaton.step(self._state, token_id)
        if state is None or self._automaton.tokens_to_end(state) + len(self._closing) >= self.tokens_left:
            return False
        self._state = state
        return True

    def _close(self, token_id: int) -> bool:
        is_complete = self._num_closed or self._automaton.tokens_to_end(self._state) == 0
        if self.is_finished or not is_complete or token_id not in self._closing[self._num_closed]:
            return False
        self._num_closed += 1
        return True


def compile_constraint(
    spec: ConstraintSpec, tokenizer: ChatTokenizer, *, max_new_tokens: int, num_logits: int | None = None
) -> Constraint:
    """The state of one answer, before its first token.

    Args:
        max_new_tokens: tokens the answer may take, its end of sentence included; where the context leaves fewer, those.
        num_logits: width of the model's logits, where it is known: ids at or past it are never counted on.

    What depends on the vocabulary is computed once per tokenizer (and set of options) and kept for the next answer.
    Raises ValueError for a budget below the shortest answer, and for a tokenizer or model without a token it needs.
    """
    stop_ids = _below(num_logits, sorted(tokenizer.stop_token_ids))
    if not stop_ids:
        raise ValueError(f"every end of sentence ({sorted(tokenizer.stop_token_ids)}) is past the {num_logits} logits")
    if isinstance(spec, Choice):
        choice = _choice_automaton(tokenizer, num_logits, spec.options)
        return Constraint(choice, b"", closing_ids=[stop_ids], tokens_left=max_new_tokens)
    opening_ids = tokenizer.encode([Text(REF, True), Text(spec.label, False), Text(REF_END + DET, True)])
    det_end_id = tokenizer.control_token_id(DET_END)
    forced_ids = [*opening_ids, det_end_id]
    if len(_below(num_logits, forced_ids)) < len(forced_ids):
        raise ValueError(
            f"token {max(forced_ids)}, part of every answer to this label, is past the {num_logits} logits"
        )
    return Constraint(
        _box_automaton(tokenizer, num_logits),
        start_of_list(spec.max_boxes),
        opening_ids=opening_ids,
        closing_ids=[[det_end_id], stop_ids],
        tokens_left=max_new_tokens,
    )


def mask_rows(logits_BV: Tensor, rows: Sequence[int], allowed: Sequence[np.ndarray]) -> Tensor:
    """A copy in which the i-th of `rows` has -inf everywhere but at the ids of `allowed[i]`; all rows in one go.

    Allowed ids at or past V are ignored. Raises ValueError if that leaves none.
    """
    known = [ids_N[ids_N < logits_BV.shape[1]] for ids_N in allowed]
    for ids_N, known_N in zip(allowed, known, strict=True):
        if not len(known_N):
            raise ValueError(
                f"none of the {len(ids_N)} allowed ids {ids_N[:20].tolist()} has one of {logits_BV.shape[1]} logits"
            )
    device = logits_BV.device
    row_index = to_device(np.repeat(np.array(rows), [len(known_N) for known_N in known]), device)
    id_index = to_device(np.concatenate(known), device)
    masked_BV = logits_BV.index_fill(0, to_device(rows, device), -torch.inf)
    masked_BV[row_index, id_index] = logits_BV[row_index, id_index]
    return masked_BV


@functools.lru_cache(maxsize=8)
def _ids_by_text(tokenizer: ChatTokenizer, num_logits: int | None) -> dict[bytes, list[int]]:
    """Ordinary tokens by what they add to a text; one that adds nothing could be repeated for ever, and is left out."""
    ids_by_text: dict[bytes, list[int]] = {}
    for index, text in tokenizer.token_bytes().items():
        if text and (num_logits is None or index < num_logits):
            ids_by_text.setdefault(text, []).append(index)
    return ids_by_text


@functools.lru_cache(maxsize=8)
def _box_automaton(tokenizer: ChatTokenizer, num_logits: int | None) -> BoxAutomaton:
    return BoxAutomaton(_ids_by_text(tokenizer, num_logits))


@functools.lru_cache(maxsize=64)
def _choice_automaton(tokenizer: ChatTokenizer, num_logits: int | None, options: tuple[str, ...]) -> ChoiceAutomaton:
    return ChoiceAutomaton(_ids_by_text(tokenizer, num_logits), options)


def _below(num_logits: int | None, ids: Sequence[int]) -> list[int]:
    return [index for index in ids if num_logits is None or index < num_logits]
