"""The conversation of a sample, as SFT files and tables write it -> turns, and the images in the order that they stand.

Two ways of writing are read: `{"from": "human", "value": "<image>\\nWhat ..."}`, where a mark in the text stands for an
image of the sample, and `{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What ..."}]}`, where
all text is text; `content` may be a text as well. Does not know whether there are such
images, nor what is asked of the turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.storage import StorageError, resolve_uri
from schemas.rows import Mark, RowImage, Turn

IMAGE_MARK = "<image>"
_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "model", "bot", "ai", "chatgpt", "bing", "bard", "claude", "chatbot"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_IMAGE_PARTS = {"image", "image_url", "input_image"}
_TEXT_PARTS = {"text", "input_text", "output_text"}
_MARK_KINDS = {"arrow": (2, 2), "box": (2, 2), "circle": (2, 2), "scribble": (2, None)}
"""With how many points there may be."""


class SampleError(ValueError):
    """What a sample says cannot be understood; the message is the reason, for a person."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """`images` are in the order in which they stand in the turns, each in one of them."""

    turns: tuple[Turn, ...]
    images: tuple[RowImage, ...]


def read_conversation(
    messages: object, images: Sequence[RowImage], image_of: Callable[[object], RowImage]
) -> Conversation:
    """
    Args:
        messages: a list of mappings; None values are as good as missing ones.
        images: those that the sample names beside its conversation. Marks take them first come, first served, and a
            further mark is text. What is left stands with the last of them that has a mark, or, where none has, before
            the first user turn.
        image_of: what a part that names its own image names. Raises SampleError.

    Raises:
        SampleError: a role or part of another kind; a part without an image that stands for more images than there are;
            an image in a turn that is not the user's; a system turn that is not the first; no user turn.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise SampleError(f"the conversation is {kind_of(messages)} instead of a list of messages")
    reader = _Reader(images, image_of)
    turns = [reader.turn(number, message) for number, message in enumerate(messages)]
    user_turns = [number for number, (role, _, _) in enumerate(turns) if role == "user"]
    if not user_turns:
        raise SampleError(f"no user turn among the {len(turns)} messages of the conversation")
    if "system" in [role for role, _, _ in turns[1:]]:
        raise SampleError("a system turn stands after other turns; it can only be the first")
    with_images = [number for number, (_, _, of_turn) in enumerate(turns) if of_turn]
    turns[with_images[-1] if with_images else user_turns[0]][2].extend(reader.unused)
    return _in_order(turns, reader.images)


def read_marks(value: object) -> tuple[Mark, ...]:
    """The marks of a sample, each `{"kind", "points", "color"}`; points are pairs, or mappings with x and y.

    Raises:
        SampleError: what is no such mark.
    """
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise SampleError(f"the marks are {kind_of(value)} instead of a list")
    return tuple(map(_mark, value))


def named_image(value: object, *, base: str) -> RowImage:
    """What a sample names an image by: a path, a URI, or a mapping with one. Raises SampleError for anything else."""
    name = first_of(value, ("path", "url", "image", "file_name")) if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name:
        raise SampleError(f"names an image by {kind_of(name) if name != '' else 'an empty text'} instead of a path")
    if name[:5].lower() == "data:":
        # Such lines are hundreds of kilobytes, and would be read and parsed once more for each of their images.
        raise SampleError("holds an image as a data: URI, which is not read: write images into files or Parquet")
    try:
        return RowImage(uri=resolve_uri(name, base))
    except (StorageError, ValueError) as error:
        raise SampleError(f"names an image by {name!r:.100}, which is no path: {error}") from error


def first_of(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of these names that has one; else None."""
    return next((record[name] for name in names if record.get(name) is not None), None)


_Turn = tuple[str, str, list[int]]
"""role, text, places of its images"""


class _Reader:
    def __init__(self, images: Sequence[RowImage], image_of: Callable[[object], RowImage]) -> None:
        self.images = list(images)
        self.unused = list(range(len(images)))
        self._image_of = image_of

    def turn(self, number: int, message: object) -> _Turn:
        if not isinstance(message, Mapping):
            raise SampleError(f"message {number} of the conversation is {kind_of(message)} instead of an object")
        said_by = first_of(message, ("role", "from"))
        role = _ROLE_OF.get(said_by.strip().lower()) if isinstance(said_by, str) else None
        if role is None:
            raise SampleError(f"message {number} of the conversation is from {said_by!r:.60}; known: {_known_roles()}")
        content = first_of(message, ("content", "value", "text"))
        if isinstance(content, str):
            text, places = self._text_and_marks(content) if role == "user" else (content, [])
        elif isinstance(content, Sequence):
            text, places = self._parts(number, content)
        else:
            raise SampleError(f"message {number} of the conversation has {kind_of(content)} for its content")
        if places and role != "user":
            raise SampleError(f"message {number} of the conversation shows an image, but is the {role}'s")
        return role, text, places

    def _text_and_marks(self, text: str) -> tuple[str, list[int]]:
        """Cuts out as many marks as there are images left, each with the line break after it."""
        pieces = text.split(IMAGE_MARK, len(self.unused))
        places, self.unused = self.unused[: len(pieces) - 1], self.unused[len(pieces) - 1 :]
        kept = pieces[0]
        for piece in pieces[1:]:
            starts_a_line = not kept or kept.endswith("\n")
            kept += piece.removeprefix("\n") if starts_a_line else piece
        return (kept.removesuffix("\n") if len(pieces) > 1 and not pieces[-1] else kept), places

    def _parts(self, number: int, parts: Sequence[object]) -> tuple[str, list[int]]:
        texts, places = [], []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            if not isinstance(part, Mapping):
                raise SampleError(f"message {number} of the conversation has a part that is {kind_of(part)}")
            kind = part.get("type") or ("text" if part.get("text") is not None else None)
            if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind in _IMAGE_PARTS:
                places.append(self._place_of_part(number, part))
            else:
                raise SampleError(f"message {number} of the conversation has a part of type {kind!r:.60}")
        return "\n".join(texts), places

    def _place_of_part(self, number: int, part: Mapping[str, Any]) -> int:
        named = first_of(part, ("image", "image_url", "path", "url"))
        if named is None:
            if not self.unused:
                raise SampleError(f"message {number} of the conversation has more image marks than there are images")
            return self.unused.pop(0)
        image = self._image_of(named)
        place = next((place for place in self.unused if self.images[place] == image), None)
        if place is None:
            self.images.append(image)
            return len(self.images) - 1
        self.unused.remove(place)
        return place


def _in_order(turns: Sequence[_Turn], images: Sequence[RowImage]) -> Conversation:
    done: list[Turn] = []
    order: list[int] = []
    for role, text, places in turns:
        done.append(Turn(role=role, text=text, images=tuple(range(len(order), len(order) + len(places)))))
        order += places
    return Conversation(turns=tuple(done), images=tuple(images[place] for place in order))


def _mark(record: object) -> Mark:
    if not isinstance(record, Mapping) or record.get("kind") not in _MARK_KINDS:
        raise SampleError(f"{record!r:.100} is no mark: its kind must be one of {', '.join(_MARK_KINDS)}")
    kind, color, given = record["kind"], record.get("color"), record.get("points")
    try:
        points = tuple(_point(point) for point in given or ())
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise SampleError(f"the points of a mark are {given!r:.100} instead of pairs of numbers") from error
    least, most = _MARK_KINDS[kind]
    if len(points) < least or (most is not None and len(points) > most):
        raise SampleError(f"a mark of kind {kind} has {len(points)} points instead of {'' if most else 'at least '}2")
    if color is not None and not isinstance(color, str):
        raise SampleError(f"the color of a mark is {kind_of(color)} instead of a text")
    return Mark(kind=kind, points=points, **({"color": color} if color else {}))


def _point(point: Any) -> tuple[float, float]:
    x, y = (point["x"], point["y"]) if isinstance(point, Mapping) else point
    if isinstance(x, str | bool) or isinstance(y, str | bool):
        raise TypeError("not numbers")
    x, y = float(x), float(y)
    if not abs(x) < 1e9 or not abs(y) < 1e9:  # infinity and NaN as well
        raise ValueError("not in any image")
    return x, y


def _known_roles() -> str:
    return ", ".join(_ROLE_OF)


_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", bytes: "bytes", type(None): "null"}


def kind_of(value: object) -> str:
    return _KINDS.get(type(value), "a number")
