"""What an engine and its ranks say to each other, pickled over a socket. Numbers tie replies to requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from model.engine_stats import EngineStats
from model.expert_share import ExpertShare
from model.parallel import ExchangeStats
from model.prompt import Message
from model.sequence import Completion, Request
from model.tiling import TiledImage


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """The first message: what a rank loads, and where it meets the others."""

    folder: str
    device: str
    dtype: torch.dtype
    engine: Mapping[str, Any]
    """Fields of `EngineConfig`."""
    share: ExpertShare
    rendezvous: str
    timeout_s: float
    num_threads: int | None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The answer to it. `error` is a sentence where the checkpoint cannot be loaded."""

    error: str = ""
    num_weight_bytes: int = 0
    num_weight_bytes_read: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenView:
    """The number of the request is the view's from then on."""

    number: int
    images: Sequence[TiledImage]


@dataclass(frozen=True, kw_only=True)
class CloseView:
    number: int
    view: int


@dataclass(frozen=True, kw_only=True)
class Ask:
    """`how`: generate with the parts of one prompt, or chat with messages."""

    number: int
    view: int
    how: Literal["generate", "chat"]
    content: str | Sequence[Any] | Sequence[Message]
    params: Mapping[str, Any]
    wants_text: bool = False
    """Whether the answer's text is told while it grows, in `Piece`s before the reply."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A request of no view; its images are tiled."""

    number: int
    request: Request


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """Whoever waited for the request has gone."""

    number: int
    request: int


@dataclass(frozen=True, kw_only=True)
class AskStats:
    number: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    number: int = 0


FromEngine = OpenView | CloseView | Ask | Answer | Cancel | AskStats | Stop


@dataclass(frozen=True, kw_only=True)
class RankStats:
    engine: EngineStats
    exchange: ExchangeStats


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Of the text of an answer that is not whole yet."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True)
class GaveUp:
    """The last word of a rank whose step failed."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """To one request: its result, or the error that it met."""

    number: int
    result: Completion | RankStats | None = None
    error: Exception | None = None
