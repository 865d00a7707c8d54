"""A scene -> question-and-answer turns about it, in exactly the words of the built-in recipes.

The prompts stand in `pipeline/recipes/` as well, which this package may not import; a contract test holds them equal.
"""

import random
from dataclasses import dataclass
from typing import Any

from model.nano.scene_language import referring_phrases
from model.nano.scene_records import Box, Scene
from model.nano.scenes import ask
from model.nano.vocabulary import MAX_COORDINATE

CAPTION_PROMPTS = (
    "Describe the image in detail.",
    "Give a detailed description of this image.",
    "What does this image show? Describe it thoroughly.",
    "Write a careful description of everything that can be seen here.",
)
CAPTION_HINT = " Where it helps, quote the text that can be read in it:\n"
OCR_PROMPTS = (
    "Read all the text in the image, line by line.",
    "Write out all the text in this image, one line for each line of it.",
    "What does the text in this image say? Give all of it, line by line.",
    "Transcribe the text in the image.",
)

Part = str | dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """`prompt` is the user's content after the image; `answer` is template text, so that it may hold control tokens."""

    task: str
    prompt: tuple[Part, ...]
    answer: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        content: list[Part] = [{"type": "image"}, "\n", *self.prompt]
        return [{"role": "user", "content": content}, {"role": "assistant", "content": self.answer}]


def make_turns(scene: Scene, *, num_questions: int, num_phrases: int) -> list[Turn]:
    """A caption, a transcription, and up to so many questions and phrases, the same for a scene every time."""
    rng = random.Random(scene.seed)
    with_hint = bool(scene.text) and rng.random() < 0.2
    turns = [
        caption_turn(scene, with_hint=with_hint, variant=rng.randrange(len(CAPTION_PROMPTS))),
        ocr_turn(scene, variant=rng.randrange(len(OCR_PROMPTS))),
    ]
    questions = dict.fromkeys((*scene.questions, *ask(rng, scene.objects, scene.layout)))
    turns += [qa_turn(one.question, one.answer) for one in list(questions)[:num_questions]]
    return turns + [grounding_turn(scene, *one) for one in choose_phrases(rng, scene, num_phrases)]


def caption_turn(scene: Scene, *, with_hint: bool, variant: int = 0) -> Turn:
    hint: tuple[Part, ...] = (CAPTION_HINT, _data(scene.text)) if with_hint else ()
    return Turn(task="caption", prompt=(CAPTION_PROMPTS[variant], *hint), answer=scene.caption)


def ocr_turn(scene: Scene, *, variant: int = 0) -> Turn:
    return Turn(task="ocr", prompt=(OCR_PROMPTS[variant],), answer=scene.text)


def qa_turn(question: str, answer: str) -> Turn:
    return Turn(task="qa", prompt=(_data(question),), answer=answer)


def grounding_turn(scene: Scene, phrase: str, boxes: list[Box]) -> Turn:
    listed = ", ".join(str(list(_coordinates(box, *scene.image.size))) for box in boxes)
    answer = f"<|ref|>{phrase}<|/ref|><|det|>[{listed}]<|/det|>"
    return Turn(task="grounding", prompt=("<|ref|>", _data(phrase), "<|/ref|>."), answer=answer)


def choose_phrases(rng: random.Random, scene: Scene, count: int) -> list[tuple[str, list[Box]]]:
    """Mostly phrases that fit one thing; every third at most fits none or several."""
    phrases = referring_phrases(scene)
    single = [one for one in phrases if len(one[1]) == 1]
    others = [one for one in phrases if len(one[1]) != 1]
    rng.shuffle(single)
    rng.shuffle(others)
    num_others = min(len(others), max(count // 3, count - len(single)))
    return [*single[: count - num_others], *others[:num_others]]


def _coordinates(box: Box, width: int, height: int) -> tuple[int, ...]:
    """In thousandths of the sides, by tens."""
    sides = (width, height, width, height)
    return tuple(min(MAX_COORDINATE, round(100 * value / side) * 10) for value, side in zip(box, sides, strict=True))


def _data(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
