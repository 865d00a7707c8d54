"""Nano's tokenizer: the words of its world are one token each, digits single, coordinates of boxes one token per ten.

Byte-level, so that any text can be read and written. Knows nothing of scenes beyond their words.
"""

from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.nano.scene_records import COLORS, SHAPES, SIZES, WORDS
from model.tokenizer import ASSISTANT, DET, DET_END, GROUNDING, REF, REF_END, USER

BOS, EOS, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"
MAX_COORDINATE = 999
COORDINATES = tuple(str(value) for value in (*range(0, MAX_COORDINATE, 10), MAX_COORDINATE))
"""What nano writes in a box, in order; the last stands for the far edge."""

_COORDINATE_OR_DIGIT = Regex(r"(?<=\[|, )\d{1,3}(?=, |\])|\d")

_PHRASES = """
Describe the image in detail. Where it helps, quote the text that can be read in it:
Read all the text in the image, line by line.
How many shapes are there? How many lines of text are there? How many circles, squares, triangles, stars, crosses?
How many diamonds are there? Is there a sign? Is there an orange? Is there any text? yes no none
What color is the one? What shape is the one? What size is the small circle? What does line 1 say?
What does the sign say? What is written? Which is further left, the red square or the? Which is further right?
Which is higher? Which is lower, the star? What colors are there? A page with 2 lines of text begins with "open".
A small red circle, a large blue star and a small cross. A sign says "open". "A large", ".
"""


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_COORDINATE_OR_DIGIT, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # never reached: merging ends when every word of the corpus is one token
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    control = [IMAGE, REF, REF_END, DET, DET_END, GROUNDING, USER, ASSISTANT]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def _corpus() -> Iterator[str]:
    for word in (*WORDS, *COLORS, *SHAPES, *SIZES):
        yield f"{word} {word}\n{word}"
    yield from _PHRASES.split("\n")
    for value in COORDINATES:
        yield f"[[{value}, {value}, {value}, {value}]]"
    yield "[[0, 10, 20, 30], [40, 50, 60, 70]]\n\n\n\n"
