"""A recipe's templates and what is known of a sample -> the parts of a prompt.

What stands in braces is data: it becomes ordinary text, whatever it spells. The rest is the recipe's, and may hold
control tokens.
"""

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.recipe_file import StepFile, Style
from schemas.recipe_specs import RecipeSpec

Part = str | Mapping[str, str]
"""Template text, or `{"type": "text", "text": ...}` for text that comes from data and must stay ordinary text."""


def data(text: str) -> Part:
    return {"type": "text", "text": text}


def fill(template: str, values: Mapping[str, str]) -> tuple[Part, ...]:
    """The template with data at its placeholders; empty pieces are left out."""
    parts: list[Part] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        if literal:
            parts.append(literal)
        if name is not None and values[name]:
            parts.append(data(values[name]))
    return tuple(parts)


def text_of(parts: Sequence[Part]) -> str:
    """As it reads."""
    return "".join(part if isinstance(part, str) else part["text"] for part in parts)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How one thing is asked. `instruction` is what the recipe's own prompt says, `prompt` all that is sent."""

    variant: int
    instruction: str
    prompt: tuple[Part, ...]


def style_of(step: StepFile, spec: RecipeSpec) -> tuple[str, Style]:
    """The way in which the job asks; of a step that has one way only, that one."""
    ways = step.ways
    name = spec.style if spec.style in ways else next(iter(ways))
    assert name is not None
    return name, ways[name]


def hints_of(step: StepFile, spec: RecipeSpec) -> tuple[str, ...]:
    """Those that this step adds, in the order of the recipe file."""
    wanted = step.default_hints if spec.hints is None else spec.hints
    return tuple(hint for hint in step.hints if hint in wanted)


def worded(
    step: StepFile, spec: RecipeSpec, values: Mapping[str, str], *, sample_key: str, others: int = 0, add: str = ""
) -> Wording:
    """Args:
    values: by the name of its placeholder, what is asked; by its name, what a hint quotes, if there is anything.
    sample_key: what the choice among variants follows from, beside the job's seed.
    others: so many variants further than that choice.
    add: template put after everything else.
    """
    prompts = style_of(step, spec)[1].prompts
    allowed = [index for index in spec.variants or () if index < len(prompts)] or list(range(len(prompts)))
    variant = allowed[(stable_int(str(spec.seed), "variant", sample_key) + others) % len(allowed)]
    own = fill(prompts[variant], values)
    given = [hint for hint in hints_of(step, spec) if values.get(hint)]
    quoted = [part for hint in given for part in fill(step.hints[hint], values)]
    return Wording(
        variant=variant,
        instruction=text_of(own),
        prompt=(*own, *quoted, *(fill(add, values) if add else ())),
    )


def stable_int(*parts: str) -> int:
    """56 bits that follow from the texts, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:7], "big")
