"""A conversation and its images -> token ids, the mask of image tokens, and tiles.

The format is the reference's "deepseek" conversation; what is tokenised is specified in reference-facts, section 3.
Knows nothing of tensors on devices or of rows: arrays are numpy.

Message content is either a string, which is trusted template text (control tokens in it are control tokens), or a
list of parts: a plain string is template text, `{"type": "text", "text": ...}` is data and always ordinary text, and
`{"type": "image"}` stands for the next image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.config import ProcessorConfig
from model.config_files import load_model_config, load_processor_config, require_agreement
from model.tiling import MAX_TILED_IMAGES, TiledImage, tile_image
from model.tokenizer import ASSISTANT, USER, ChatTokenizer, Text

Message = Mapping[str, Any]
ImageInput = Image.Image | TiledImage

_ROLES = {
    "user": "user",
    USER: "user",
    "assistant": "assistant",
    ASSISTANT: "assistant",
    "system": "system",
    "deepseekapi-sys": "system",
}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model reads.

    input_ids: int64 [T]; positions of an image hold the id of `<image>`.
    image_mask: bool [T], True at those positions.
    images: in order of appearance.
    """

    input_ids: np.ndarray
    image_mask: np.ndarray
    images: tuple[TiledImage, ...] = ()

    @property
    def tiles(self) -> np.ndarray:
        """uint8 [N, S, S, 3], copied: per image its global view, then its local tiles; [0, 0, 0, 3] without images."""
        return join_tiles(self.images)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Per image (tiles_wide, tiles_high)."""
        return [image.grid for image in self.images]

    def __len__(self) -> int:
        return len(self.input_ids)


class Processor:
    """Builds prompts for one checkpoint. Thread-safe."""

    def __init__(self, config: ProcessorConfig, tokenizer: ChatTokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "Processor":
        """Reads the processor of a checkpoint; `path` as for `model.checkpoint.load`. Reads no weights.

        Raises ValueError naming the file and key that is missing, malformed, or at odds with the model's configuration.
        """
        # Not at the top: it may reach a network, and tiling, which imports this file, never needs it.
        from model.checkpoint_files import local_folder

        folder = local_folder(path, weights=False)
        config, model_config = load_processor_config(folder), load_model_config(folder)
        require_agreement(model_config, config, folder)
        tokenizer = ChatTokenizer.from_checkpoint(
            folder,
            image_token=config.image_token,
            bos_token_id=model_config.language.bos_token_id,
            eos_token_id=model_config.language.eos_token_id,
        )
        largest, vocab_size = tokenizer.largest_id, model_config.language.vocab_size
        if largest >= vocab_size:
            raise ValueError(
                f"{folder / 'tokenizer.json'} has a token with id {largest}, but the model of config.json embeds "
                f"{vocab_size} tokens: they belong to different checkpoints"
            )
        return cls(config, tokenizer)

    def encode(self, messages: Sequence[Message], images: Sequence[ImageInput] = ()) -> Prompt:
        """Tokenises a conversation that ends with an assistant message ("" to be generated, else to be continued).

        Raises ValueError for an unknown role or part, a system message after the first, a conversation that does not
        end with the assistant, an image mark in an assistant message, marks and images that differ in number, text
        that is no valid Unicode, and images that cannot be tiled (see `tile`).
        """
        tiled = self.tile(images)
        turns = [self._turn_ids(message, is_first=index == 0) for index, message in enumerate(messages)]
        if not messages or _role_of(messages[-1]) != "assistant":
            raise ValueError("the last message must be the assistant's (content '' where the model shall answer)")
        ids = [self.tokenizer.bos_token_id]
        ids += [token for turn in turns for token in turn][:-1]  # the last turn's end of sentence is the model's
        return self._lay_out(np.array(ids, dtype=np.int64), tiled)

    def tile(self, images: Sequence[ImageInput]) -> list[TiledImage]:
        """Tiles PIL RGB images; images tiled before are taken as they are. More than two are not tiled.

        Raises ValueError for an image of another mode or without pixels, and for tiles of another shape or dtype.
        """
        dynamic = len(images) <= MAX_TILED_IMAGES
        return [self._tile(image, dynamic=dynamic) for image in images]

    def _tile(self, image: ImageInput, *, dynamic: bool) -> TiledImage:
        if isinstance(image, Image.Image):
            return tile_image(image, self.config.candidate_resolutions, dynamic=dynamic)
        size, (tiles_wide, tiles_high) = self.config.candidate_resolutions[0][0], image.grid
        shape = (1 + tiles_wide * tiles_high, size, size, 3)
        if image.tiles.shape != shape or image.tiles.dtype != np.uint8:
            raise ValueError(
                f"a {tiles_wide}x{tiles_high} grid of this checkpoint has uint8 tiles of shape {shape}, "
                f"got {image.tiles.dtype} of {image.tiles.shape}: tile the image with this checkpoint's processor"
            )
        return image if dynamic else image.untiled()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids; a closing end of sentence is left out, other control tokens are spelled out."""
        ids = list(token_ids)
        if ids and ids[-1] in self.tokenizer.stop_token_ids:
            ids.pop()
        return self.tokenizer.decode(ids)

    def _turn_ids(self, message: Message, *, is_first: bool) -> list[int]:
        role = _role_of(message)
        pieces = _strip(self._pieces(message.get("content", "")))
        if role == "system":
            if not is_first:
                raise ValueError("a system message is only allowed as the first message")
            return self.tokenizer.encode(pieces)
        if role == "user":
            # Without content the reference leaves out the blank and the line breaks as well.
            opening, closing = (f"{USER}: ", f"\n\n{ASSISTANT}:") if pieces else (f"{USER}:", f"{ASSISTANT}:")
            return self.tokenizer.encode([Text(opening, True), *pieces, Text(closing, True)])
        ids = self.tokenizer.encode(pieces)
        if self.tokenizer.image_token_id in ids:
            raise ValueError("an assistant message cannot hold an image mark; images belong to the user's messages")
        return [*ids, self.tokenizer.eos_token_id]

    def _pieces(self, content: str | Sequence[str | Mapping[str, str]]) -> list[Text]:
        if isinstance(content, str):
            return [Text(content, True)]
        if not isinstance(content, Sequence):
            raise ValueError(f"the content of a message is {content!r}: use a string or a list of parts")
        return [self._piece(part) for part in content]

    def _piece(self, part: str | Mapping[str, str]) -> Text:
        if isinstance(part, str):
            return Text(part, True)
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            return Text(part["text"], False)
        if kind == "image":
            return Text(self.config.image_token, True)
        raise ValueError(f"unknown part {part!r} in a message: use a string, type 'text' with a text, or type 'image'")

    def _lay_out(self, marked_ids: np.ndarray, images: Sequence[TiledImage]) -> Prompt:
        """Repeats each image mark as often as its image has tokens."""
        marks = marked_ids == self.tokenizer.image_token_id
        if marks.sum() != len(images):
            raise ValueError(
                f"the messages hold {marks.sum()} {self.config.image_token} marks but {len(images)} images were given"
            )
        repeats = np.ones(len(marked_ids), dtype=np.int64)
        repeats[marks] = [self.config.num_image_tokens(image.grid) for image in images]
        return Prompt(
            input_ids=np.repeat(marked_ids, repeats), image_mask=np.repeat(marks, repeats), images=tuple(images)
        )


def join_tiles(images: Sequence[TiledImage]) -> np.ndarray:
    """uint8 [N, S, S, 3] of all images; [0, 0, 0, 3] where there are none."""
    return np.concatenate([image.tiles for image in images]) if images else np.empty((0, 0, 0, 3), dtype=np.uint8)


def _role_of(message: Message) -> str:
    role = message.get("role")
    if role not in _ROLES:
        raise ValueError(f"unknown role {role!r} in a message: use one of {', '.join(_ROLES)}")
    return _ROLES[role]


def _strip(pieces: list[Text]) -> list[Text]:
    """The pieces without white space at the two ends of the text they make together, and without empty ones."""
    pieces = [piece for piece in pieces if piece.text]
    while pieces and not (first := pieces[0].text.lstrip()):
        pieces = pieces[1:]
    if pieces:
        pieces[0] = Text(first, pieces[0].trusted)
    while pieces and not (last := pieces[-1].text.rstrip()):
        pieces = pieces[:-1]
    if pieces:
        pieces[-1] = Text(last, pieces[-1].trusted)
    return pieces
