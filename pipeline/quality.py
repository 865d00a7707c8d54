"""One answer and the gates of its recipe -> what is wrong with it, one `Finding` for each fault.

Looks at texts and numbers alone: no image, no model. What follows from a finding is the recipe's business. Whether a
text is in the dataset already cannot be seen here (see `pipeline.seen_texts`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.gates.boxes import faults_of_boxes
from pipeline.gates.code import why_code_is_broken
from pipeline.gates.echo import what_is_echoed
from pipeline.gates.language import foreign_language
from pipeline.gates.leftovers import find_placeholder, find_turn
from pipeline.gates.marks import find_mark
from pipeline.gates.ocr_agreement import unread_quotations
from pipeline.gates.refusal import find_boilerplate, find_refusal
from pipeline.gates.repetition import find_repetition
from pipeline.gates.words import says_nothing
from schemas.gates import GatesSpec, Then

if TYPE_CHECKING:
    from pipeline.recipes.boxes import Box  # the recipes import this module

QUALITY_VERSION = "3"
"""Part of every recipe's digest: to be changed with whatever changes a verdict."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer and what it is judged against."""

    text: str
    finish_reason: str
    mean_logprob: float
    num_output_tokens: int
    instruction: str = ""
    """The prompt's own words."""
    question: str = ""
    """What the data asks; "" where it asks nothing."""
    language: str | None = None
    """Code such as "de" of the language that is wanted; None: that of the question, or else of the instruction."""
    ocr_text: str | None = None
    """What can be read in the image, where that is known."""
    boxes: "tuple[Box, ...] | None" = None
    width_px: int = 0
    height_px: int = 0
    code_language: str | None = None
    parse_flags: tuple[str, ...] = ()
    """What the parser of the answer found."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`flag`: the word in the table's column `flags`; `then`: what the recipe wants; `detail`: for people."""

    gate: str
    flag: str
    then: Then
    detail: str


Faults = Iterator[tuple[str, str]]
"""Flag and detail."""


def judge(judged: Judged, gates: GatesSpec) -> tuple[Finding, ...]:
    """All that the gates find, in the order of `GatesSpec`; time grows linearly with the text."""
    return tuple(
        Finding(gate=name, flag=flag, then=getattr(gates, name).then, detail=detail)
        for name, faults in _GATES.items()
        if getattr(gates, name) is not None
        for flag, detail in faults(judged, gates)
    )


def _repetition(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.repetition is not None
    if detail := find_repetition(judged.text, gates.repetition):
        yield "repetition", detail


def _truncated(judged: Judged, gates: GatesSpec) -> Faults:
    if judged.finish_reason == "length":
        yield "output_truncated", f"cut off after {judged.num_output_tokens} tokens"
    if judged.finish_reason == "loop":
        yield "output_looped", f"stopped in a loop after {judged.num_output_tokens} tokens"


def _empty(judged: Judged, gates: GatesSpec) -> Faults:
    if says_nothing(judged.text, is_asked=bool(judged.question.strip())):
        yield "output_empty", f"{judged.text[:40]!r} says nothing"


def _echo(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.echo is not None
    if echoed := what_is_echoed(judged.text, (judged.question, judged.instruction), gates.echo):
        yield "echo", f"repeats {echoed[:60]!r}"


def _refusal(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.refusal is not None
    if phrase := find_refusal(judged.text):
        yield "refusal", f"declines: {phrase!r}"
    elif gates.refusal.boilerplate and (phrase := find_boilerplate(judged.text)):
        yield "boilerplate", f"says {phrase!r}"


def _marks(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.marks is not None
    own_words = gates.marks.own_words
    if mark := find_mark(judged.text) or (find_turn(judged.text) if own_words else None):
        yield "marks", f"holds {mark!r}"
    if own_words and (placeholder := find_placeholder(judged.text)):
        yield "placeholder", f"holds {placeholder!r}"


def _language(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.language is not None
    found = foreign_language(
        judged.text,
        asked=judged.question or judged.instruction,
        wanted=judged.language,
        ocr_text=judged.ocr_text or "",
        gate=gates.language,
    )
    if found:
        yield "wrong_language", f"{found.found} instead of {found.wanted}"


def _ocr_agreement(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.ocr_agreement is not None
    if judged.ocr_text is not None and (unread := unread_quotations(judged.text, judged.ocr_text, gates.ocr_agreement)):
        yield "ocr_disagrees", f"quotes {unread[0][:60]!r}, which the OCR text does not have"


def _boxes(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.boxes is not None
    yield from faults_of_boxes(
        judged.boxes,
        judged.text,
        parse_flags=judged.parse_flags,
        width_px=judged.width_px,
        height_px=judged.height_px,
        gate=gates.boxes,
    )


def _low_logprob(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.low_logprob is not None
    least = gates.low_logprob.min_mean_logprob
    is_known = judged.num_output_tokens >= gates.low_logprob.min_tokens
    if is_known and not judged.mean_logprob >= least:  # "not": what is no number is no good sign either
        yield "low_logprob", f"mean log-probability {judged.mean_logprob:.2f}, under {least:g}"


def _code(judged: Judged, gates: GatesSpec) -> Faults:
    if judged.code_language and (detail := why_code_is_broken(judged.text, judged.code_language)):
        yield "code_broken", detail


def _form(judged: Judged, gates: GatesSpec) -> Faults:
    assert gates.form is not None
    for flag in judged.parse_flags:
        if flag in gates.form.parse_flags:
            yield flag, f"{judged.text[-60:]!r} ends without what was asked for"


_GATES: dict[str, Callable[[Judged, GatesSpec], Faults]] = {
    "repetition": _repetition,
    "truncated": _truncated,
    "empty": _empty,
    "echo": _echo,
    "refusal": _refusal,
    "marks": _marks,
    "language": _language,
    "ocr_agreement": _ocr_agreement,
    "boxes": _boxes,
    "low_logprob": _low_logprob,
    "code": _code,
    "form": _form,
}
