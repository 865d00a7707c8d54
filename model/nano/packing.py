"""Turns about images -> one packed training batch: all turns of an image share its tokens, none sees another.

Shapes: T tokens of the whole batch, A supervised positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.nano.lessons import Turn
from model.nano.turn_attention import Block, make_blocks
from model.nano.vocabulary import COORDINATES
from model.prompt import Processor
from model.tiling import TiledImage
from model.tokenizer import DET


@dataclass(frozen=True, kw_only=True)
class Packed:
    """ids_T and positions_T: int64, those of images included; image_mask_T: bool.

    blocks: of which tokens which see each other. rows_A: the positions whose next token is
    supervised, targets_A: which it is, coordinates_A: which of COORDINATES it is, -1 where it is none;
    first_coordinates_A: bool, True where it is the left side of a box; tasks_A: index into the batch's tasks.
    """

    ids_T: Tensor
    positions_T: Tensor
    image_mask_T: Tensor
    blocks: list[Block]
    rows_A: Tensor
    targets_A: Tensor
    coordinates_A: Tensor
    first_coordinates_A: Tensor
    tasks_A: Tensor


TASKS = ("caption", "ocr", "qa", "grounding")


class Packer:
    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        tokenizer = processor.tokenizer
        self._coordinate_of_id = {_coordinate_id(processor, text): index for index, text in enumerate(COORDINATES)}
        self._det_id = tokenizer.control_token_id(DET)
        size = processor.config.candidate_resolutions[0][0]
        self._stand_in = TiledImage(tiles=np.zeros((2, size, size, 3), np.uint8), grid=(1, 1))

    @property
    def coordinate_ids(self) -> list[int]:
        """Token ids in the order of COORDINATES."""
        return list(self._coordinate_of_id)

    def pack(self, images: Sequence[TiledImage], lessons: Sequence[Sequence[Turn]]) -> Packed:
        ids: list[int] = []
        positions: list[int] = []
        is_image: list[bool] = []
        blocks: list[Block] = []
        rows: list[int] = []
        targets: list[int] = []
        coordinates: list[int] = []
        tasks: list[int] = []
        for image, turns in zip(images, lessons, strict=True):
            opening, turn_ids = self._encode(turns)
            num_image_tokens = self._processor.config.num_image_tokens(image.grid)
            sequence = [*opening, *[0] * num_image_tokens]
            prefix = len(sequence)
            start = len(ids)
            turn_lengths = []
            ids += sequence
            positions += range(prefix)
            is_image += [False] * len(opening) + [True] * num_image_tokens
            for turn, (asked, answered) in zip(turns, turn_ids, strict=True):
                first = len(ids) + len(asked) - 1
                rows += range(first, first + len(answered))
                targets += answered
                coordinates += self._coordinates(answered)
                tasks += [TASKS.index(turn.task)] * len(answered)
                turn_tokens = [*asked, *answered[:-1]]
                ids += turn_tokens
                positions += range(prefix, prefix + len(turn_tokens))
                is_image += [False] * len(turn_tokens)
                turn_lengths.append(len(turn_tokens))
            blocks += make_blocks(start, prefix, turn_lengths)
        return Packed(
            ids_T=torch.tensor(ids),
            positions_T=torch.tensor(positions),
            image_mask_T=torch.tensor(is_image),
            blocks=blocks,
            rows_A=torch.tensor(rows),
            targets_A=torch.tensor(targets),
            coordinates_A=torch.tensor(coordinates),
            first_coordinates_A=_every_fourth(coordinates),
            tasks_A=torch.tensor(tasks),
        )

    def _encode(self, turns: Sequence[Turn]) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        """(ids before the image, per turn (ids after the image up to the answer, ids of the answer and its end))."""
        encoded = []
        opening: list[int] = []
        for turn in turns:
            user, assistant = turn.messages
            asked = self._processor.encode([user, {**assistant, "content": ""}], [self._stand_in])
            whole = self._processor.encode([user, assistant], [self._stand_in])
            image = np.flatnonzero(asked.image_mask)
            opening = asked.input_ids[: image[0]].tolist()
            answer = [*whole.input_ids[len(asked) :].tolist(), self._processor.tokenizer.eos_token_id]
            encoded.append((asked.input_ids[image[-1] + 1 :].tolist(), answer))
        return opening, encoded

    def _coordinates(self, answer: list[int]) -> list[int]:
        """Per token of an answer the coordinate it is; numbers outside of boxes are none."""
        if self._det_id not in answer:
            return [-1] * len(answer)
        boxes = answer.index(self._det_id)
        return [self._coordinate_of_id.get(token, -1) if place > boxes else -1 for place, token in enumerate(answer)]


def _every_fourth(coordinates: list[int]) -> Tensor:
    """True at the first of each four coordinates; boxes are whole, so the count may run on from answer to answer."""
    is_coordinate_A = torch.tensor(coordinates) >= 0
    return is_coordinate_A & ((is_coordinate_A.cumsum(0) - 1) % 4 == 0)


def _coordinate_id(processor: Processor, text: str) -> int:
    messages = [{"role": "user", "content": ""}, {"role": "assistant", "content": f"[{text}, {text}]"}]
    return int(processor.encode(messages).input_ids[-2])
