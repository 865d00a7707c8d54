"""An engine that answers by the book: what a prompt holds decides what is said, and everything asked is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.tiling import TiledImage
from tests.pipeline.outputs import Said


class ExactEngine:
    """Stands where `model.engine.Engine` does, for whoever opens images and asks about them."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        """answers: words of a prompt, and what is said to it; those that stand first count. Several answers to the same
        words are given in turn, the last of them for ever."""
        self._answers = answers
        self._num_said: dict[str, int] = {}
        self.opened: list[tuple[TiledImage, ...]] = []
        self.asked: list[Asked] = []

    def open(self, images: Sequence[TiledImage]) -> "_View":
        self.opened.append(tuple(images))
        return _View(self, tuple(images))

    def close(self) -> None:
        pass

    def say(self, asked: "Asked") -> Said:
        self.asked.append(asked)
        words = next((words for words, _ in self._answers if words in asked.text), None)
        assert words is not None, f"nothing is known to say to {asked.text!r}"
        said = [answer for key, answer in self._answers if key == words]
        number = self._num_said.get(words, 0)
        self._num_said[words] = number + 1
        return Said(text=said[min(number, len(said) - 1)])

    @property
    def prompts(self) -> list[str]:
        return [asked.text for asked in self.asked]


class Asked:
    """One prompt: its text, in a conversation that of the last turn, and what else it came with."""

    def __init__(self, messages: Sequence[Mapping[str, Any]], images: tuple[TiledImage, ...], params: Any) -> None:
        self.messages, self.images, self.params = messages, images, params
        self.text = text_of_message(messages[-2])


class _View:
    def __init__(self, engine: ExactEngine, images: tuple[TiledImage, ...]) -> None:
        self._engine, self._images = engine, images

    async def __aenter__(self) -> "_View":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def generate(self, text: Sequence[Any], **params: Any) -> Said:
        return await self.chat([{"role": "user", "content": text}, {"role": "assistant", "content": ""}], **params)

    async def chat(self, messages: Sequence[Mapping[str, Any]], **params: Any) -> Said:
        return self._engine.say(Asked(messages, self._images, params))


def text_of_message(message: Mapping[str, Any]) -> str:
    """As it reads, images left out."""
    parts = [part if isinstance(part, str) else part.get("text", "") for part in message["content"]]
    return "".join(parts).strip()
