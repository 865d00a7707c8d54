"""Samples -> `messages.jsonl`: one conversation a line, with typed parts, as TRL and chat templates read it.

A picture is a part of its own, so that no text has to be escaped.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.exports.conversations import Conversation
from pipeline.exports.destination import Destination
from pipeline.exports.json_text import Spool, json_line

FILE = "messages.jsonl"


class MessagesFile:
    """Lines have `id`, `images`, in the order in which they are shown, and `messages`."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._spool = Spool()

    def add(self, conversation: Conversation, names: Sequence[str]) -> None:
        """names: of the sample's pictures."""
        shown = [names[picture] for exchange in conversation.exchanges for picture in exchange.pictures]
        messages = [_message("system", conversation.system)] if conversation.system else []
        for exchange in conversation.exchanges:
            messages.append(_message("user", exchange.question, num_images=len(exchange.pictures)))
            messages.append(_message("assistant", exchange.answer))
        record = {"id": conversation.id, "images": shown, "messages": messages}
        self._spool.write(json_line(record) + "\n")

    def finish(self) -> None:
        with self._spool:
            self._destination.put_file(FILE, self._spool.file)


def _message(role: str, text: str, *, num_images: int = 0) -> dict[str, Any]:
    return {"role": role, "content": [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": text}]}
