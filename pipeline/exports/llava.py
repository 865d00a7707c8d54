"""Samples -> `llava.json`: one JSON array, one conversation a line, as LLaVA's own loaders read it.

A picture is marked by `<image>` in the text. Where data spells that mark, a backslash is put into it: `<image>` becomes
`<\\image>`, and `<\\image>` becomes `<\\\\image>`, so that taking one backslash away gives the text back.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.exports.conversations import Conversation
from pipeline.exports.destination import Destination
from pipeline.exports.json_text import Spool, json_line

FILE = "llava.json"
IMAGE_MARK = "<image>"

_SPELT_MARK = re.compile(r"<(\\*)image>")


class LlavaFile:
    """Conversations have `id`, `image` (or not, where none is shown), `conversations`, and `system` where there is one:
    as a turn it would be more than LLaVA's loaders take."""

    def __init__(self, destination: Destination, *, several_images: bool) -> None:
        """several_images: some sample has more than one, so that every `image` is a list: a column has one type."""
        self._destination, self._several_images = destination, several_images
        self._spool = Spool()
        self._num_records = 0

    def add(self, conversation: Conversation, names: Sequence[str]) -> None:
        """names: of the sample's pictures."""
        self._spool.write(",\n" if self._num_records else "[\n")
        self._spool.write(json_line(self._record(conversation, names)))
        self._num_records += 1

    def finish(self) -> None:
        self._spool.write("\n]\n" if self._num_records else "[]\n")
        with self._spool:
            self._destination.put_file(FILE, self._spool.file)

    def _record(self, conversation: Conversation, names: Sequence[str]) -> Mapping[str, Any]:
        shown = [names[picture] for exchange in conversation.exchanges for picture in exchange.pictures]
        record: dict[str, Any] = {"id": conversation.id}
        if shown:
            record["image"] = shown if self._several_images else shown[0]
        if conversation.system:
            record["system"] = escaped(conversation.system)
        record["conversations"] = turns = []
        for exchange in conversation.exchanges:
            marks = f"{IMAGE_MARK}\n" * len(exchange.pictures)
            turns.append({"from": "human", "value": marks + escaped(exchange.question)})
            turns.append({"from": "gpt", "value": escaped(exchange.answer)})
        return record


def escaped(text: str) -> str:
    """Text without any mark of an image in it."""
    return _SPELT_MARK.sub(r"<\\\1image>", text)


def unescaped(text: str) -> str:
    """What `escaped` was given."""
    return re.sub(r"<\\(\\*)image>", r"<\1image>", text)
