"""The tokens of one answer, one by one -> its text in pieces, each as soon as it can be told.

The pieces joined are the text that `Processor.decode` gives of all tokens. Knows nothing of who listens, but for the
hand-over to an event loop.
"""

import asyncio
import codecs
import contextlib
from collections.abc import Callable

from model.tokenizer import ChatTokenizer

OnText = Callable[[str], None]


class TextStream:
    """Holds back what a later token may change: the bytes of a character that is not whole yet, and an end of sentence,
    which is no text where it comes last."""

    def __init__(self, tokenizer: ChatTokenizer, on_text: OnText) -> None:
        """Raises ValueError for a tokenizer that is not byte-level: its tokens may read differently from place to
        place."""
        tokenizer.require_byte_level()
        self._tokenizer, self._on_text = tokenizer, on_text
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = b""

    def add(self, token_id: int) -> None:
        encoded = self._tokenizer.bytes_of(token_id)
        if token_id in self._tokenizer.stop_token_ids:
            before, self._held = self._held, encoded
            self._tell(before)
        else:
            before, self._held = self._held, b""
            self._tell(before + encoded)

    def close(self) -> None:
        """After the last token: a character that was begun is told as the replacement character, as in the text."""
        self._tell(b"", final=True)

    def _tell(self, encoded: bytes, *, final: bool = False) -> None:
        if piece := self._decoder.decode(encoded, final):
            self._on_text(piece)


class LoopRelay:
    """Called from any thread, it calls `on_text` on the event loop that it was made on; once closed, no more.

    A callback that raises is the loop's affair (`loop.call_exception_handler`): neither the engine nor the answer
    notices.
    """

    def __init__(self, on_text: OnText) -> None:
        self._on_text, self._loop = on_text, asyncio.get_running_loop()
        self._is_open = True

    def __call__(self, piece: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._hand_over, piece)

    def close(self) -> None:
        self._is_open = False

    def _hand_over(self, piece: str) -> None:
        if self._is_open:
            self._on_text(piece)
