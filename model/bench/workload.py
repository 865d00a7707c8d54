"""Inputs to measure with: noise for tiles, four short prompts about an image, texts of a wanted number of tokens."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from model.bench.roofline import ImageWork
from model.prompt import Processor
from model.tiling import TiledImage

GRIDS: Mapping[str, tuple[int, int]] = {"one_tile": (1, 1), "nine_tiles": (3, 3)}
"""Local tiles; every image has its global view on top."""

PROMPTS = ("Describe the picture.", "Read all of the text.", "What does a dog hold?", "Where is the red cup?")
"""21 letters each, so that a tokenizer of bytes makes 30 text tokens of a prompt."""

_STRIDE = 4099
"""Bytes from one image's noise to the next one's: odd, so that no tile of one is a tile of another."""
_NUM_STARTS = 8192


class NoiseImages:
    """Images that all differ, cut out of one stretch of noise. No image comes twice in the first thousands."""

    def __init__(self, processor: Processor, *, seed: int = 0) -> None:
        self._size = processor.config.candidate_resolutions[0][0]
        self._num_drawn = 0
        num_tiles = max(1 + wide * high for wide, high in GRIDS.values())
        self._noise = np.random.default_rng(seed).integers(
            0, 256, num_tiles * self._size**2 * 3 + _NUM_STARTS * _STRIDE, dtype=np.uint8
        )

    def draw(self, num_images: int, grid: tuple[int, int]) -> list[TiledImage]:
        return [self._next(grid) for _ in range(num_images)]

    def _next(self, grid: tuple[int, int]) -> TiledImage:
        shape = (1 + grid[0] * grid[1], self._size, self._size, 3)
        start = self._num_drawn % _NUM_STARTS * _STRIDE
        self._num_drawn += 1
        return TiledImage(tiles=self._noise[start : start + math.prod(shape)].reshape(shape), grid=grid)


def image_work(processor: Processor, grid: tuple[int, int], prompts: Sequence[str], output_tokens: int) -> ImageWork:
    """What `view.generate(prompt)` for each prompt asks of the model, by the tokens that the processor makes."""
    (image,) = NoiseImages(processor).draw(1, grid)
    own, shared = [], 0
    for text in prompts:
        messages = user_message(f"{processor.config.image_token}\n{text}")
        mask = processor.encode(messages, [image]).image_mask
        shared = int(mask.nonzero()[0][-1]) + 1
        own.append(len(mask) - shared)
    return ImageWork(
        num_tiles=len(image.tiles), num_shared_tokens=shared, num_own_tokens=own, num_output_tokens=output_tokens
    )


def texts_of(processor: Processor, num_texts: int, num_tokens: int, *, seed: int = 0) -> list[str]:
    """Different texts whose prompts have `num_tokens` tokens, or a few less where a token is several letters.

    Words come from a list of a thousand, as in a language, so that a tokenizer's cache of words works as it does there.
    """
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(1000)]
    texts = [" ".join(random.choice(words, num_tokens)) for _ in range(num_texts)]  # a word is a token at least
    num_letters = _num_letters(processor, texts[0], num_tokens)
    cut = [text[:num_letters] for text in texts]
    return [
        text if _num_prompt_tokens(processor, text) <= num_tokens else text[: _num_letters(processor, text, num_tokens)]
        for text in cut
    ]


def _num_prompt_tokens(processor: Processor, text: str) -> int:
    return len(processor.encode(user_message(text)))


def user_message(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]


def _num_letters(processor: Processor, text: str, num_tokens: int) -> int:
    """The most letters of the text whose prompt has at most `num_tokens` tokens."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _num_prompt_tokens(processor, text[:middle]) <= num_tokens:
            low = middle
        else:
            high = middle - 1
    return low
