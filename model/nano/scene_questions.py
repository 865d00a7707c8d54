"""What is true of a scene -> questions with one short answer that nobody would dispute.

Each kind of question is one function: it takes a `Subject` and returns one question, or None where the scene has no
occasion for it (a colour that is asked for must belong to one thing alone, a relation must be clear to see).
"""

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from model.nano.scene_language import plural
from model.nano.scene_records import COLORS, SHAPES, Layout, Question, SceneObject

QUESTIONS_PER_SCENE = 6

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Subject:
    rng: random.Random
    objects: tuple[SceneObject, ...]
    layout: Layout

    def attribute(self, of_objects: Sequence[str], vocabulary: Sequence[str]) -> str:
        """One that the scene has, three times in four; else any: often the answer is then none, or no."""
        common = of_objects and self.rng.random() < 0.75
        return self.rng.choice(of_objects if common else vocabulary)


def ask(rng: random.Random, objects: tuple[SceneObject, ...], layout: Layout) -> tuple[Question, ...]:
    """Four to six different questions, in no particular order; another stream asks others about the same scene."""
    subject = Subject(rng=rng, objects=objects, layout=layout)
    kinds = rng.sample(KINDS, k=len(KINDS))
    asked = dict.fromkeys(question for kind in kinds if (question := kind(subject)))
    return tuple(asked)[:QUESTIONS_PER_SCENE]


def count_shapes(subject: Subject) -> Question | None:
    return Question(question="How many shapes are there?", answer=str(len(subject.objects)))


def count_color(subject: Subject) -> Question | None:
    if not subject.objects:
        return None
    colors = [one.color for one in subject.objects]
    color = subject.attribute(colors, tuple(COLORS))
    return Question(question=f"How many {color} shapes are there?", answer=str(colors.count(color)))


def count_shape(subject: Subject) -> Question | None:
    if not subject.objects:
        return None
    shapes = [one.shape for one in subject.objects]
    shape = subject.attribute(shapes, SHAPES)
    return Question(question=f"How many {plural(shape)} are there?", answer=str(shapes.count(shape)))


def presence(subject: Subject) -> Question | None:
    """Half of the answers are no, and most of those mix a colour and a shape that are both there."""
    if not subject.objects:
        return None
    names = [one.name for one in subject.objects]
    name = subject.rng.choice(names)
    if subject.rng.random() < 0.5:
        color = subject.attribute([one.color for one in subject.objects], tuple(COLORS))
        shape = subject.attribute([one.shape for one in subject.objects], SHAPES)
        other = [f"{color} {one}" for one in SHAPES if f"{color} {one}" not in names]
        name = f"{color} {shape}" if f"{color} {shape}" not in names else subject.rng.choice(other)
    return Question(question=f"Is there {_article(name)} {name}?", answer=_yes(name in names))


def color_of(subject: Subject) -> Question | None:
    one = _only(subject, lambda thing: thing.shape)
    return Question(question=f"What color is the {one.shape}?", answer=one.color) if one else None


def color_of_size(subject: Subject) -> Question | None:
    """As `color_of`, also where two of a shape differ in size."""
    one = _only(subject, lambda thing: (thing.size, thing.shape))
    return Question(question=f"What color is the {one.size} {one.shape}?", answer=one.color) if one else None


def shape_of(subject: Subject) -> Question | None:
    one = _only(subject, lambda thing: thing.color)
    return Question(question=f"What shape is the {one.color} one?", answer=one.shape) if one else None


def size_of(subject: Subject) -> Question | None:
    one = _only(subject, lambda thing: thing.name)
    return Question(question=f"What size is the {one.name}?", answer=one.size) if one else None


def further_left_or_right(subject: Subject) -> Question | None:
    return _relation(subject, axis=0, words=("further left", "further right"))


def higher_or_lower(subject: Subject) -> Question | None:
    return _relation(subject, axis=1, words=("higher", "lower"))


def count_lines(subject: Subject) -> Question | None:
    return Question(question="How many lines of text are there?", answer=str(len(subject.layout.lines)))


def text_presence(subject: Subject) -> Question | None:
    """Asks for a sign mostly where something is written, since it is no sign but a page about as often."""
    lines, sign = subject.layout.lines, subject.layout.sign_box
    if subject.rng.random() < (0.6 if lines else 0.3):
        return Question(question="Is there a sign?", answer=_yes(bool(sign)))
    return Question(question="Is there any text?", answer=_yes(bool(lines)))


def line_says(subject: Subject) -> Question | None:
    if not subject.layout.lines:
        return None
    index = subject.rng.randrange(len(subject.layout.lines))
    return Question(question=f"What does line {index + 1} say?", answer=subject.layout.lines[index])


def sign_says(subject: Subject) -> Question | None:
    if not subject.layout.sign_box:
        return None
    return _one_line(subject, "What does the sign say?")


def what_is_written(subject: Subject) -> Question | None:
    return _one_line(subject, "What is written?")


KINDS: tuple[Callable[[Subject], Question | None], ...] = (
    count_shapes,
    count_color,
    count_shape,
    presence,
    color_of,
    color_of_size,
    shape_of,
    size_of,
    further_left_or_right,
    higher_or_lower,
    count_lines,
    text_presence,
    line_says,
    sign_says,
    what_is_written,
    *(presence, further_left_or_right, higher_or_lower, line_says),
)
"""Those that stand here twice bind an attribute to a place, the hardest thing to learn, and are asked more often."""


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _article(name: str) -> str:
    return "an" if name.startswith("o") else "a"


def _one_line(subject: Subject, question: str) -> Question | None:
    lines = subject.layout.lines
    return Question(question=question, answer=lines[0]) if len(lines) == 1 else None


def _unique(subject: Subject, key: Callable[[SceneObject], Key]) -> list[SceneObject]:
    keys = [key(one) for one in subject.objects]
    return [one for one in subject.objects if keys.count(key(one)) == 1]


def _only(subject: Subject, key: Callable[[SceneObject], Key]) -> SceneObject | None:
    unique = _unique(subject, key)
    return subject.rng.choice(unique) if unique else None


def _relation(subject: Subject, *, axis: int, words: tuple[str, str]) -> Question | None:
    """Which of two things with different names, whose centres are at least half of the larger one apart."""
    named = _unique(subject, lambda thing: thing.name)
    pairs = [(one, other) for one in named for other in named if one is not other and _clearly_apart(one, other, axis)]
    if not pairs:
        return None
    one, other = subject.rng.choice(pairs)
    first, last = sorted((one, other), key=lambda thing: thing.center[axis])
    end = subject.rng.randrange(2)
    answer = (first, last)[end].name
    return Question(question=f"Which is {words[end]}, the {one.name} or the {other.name}?", answer=f"the {answer}")


def _clearly_apart(one: SceneObject, other: SceneObject, axis: int) -> bool:
    sides = [thing.box[axis + 2] - thing.box[axis] for thing in (one, other)]
    return abs(one.center[axis] - other.center[axis]) >= max(sides) / 2
