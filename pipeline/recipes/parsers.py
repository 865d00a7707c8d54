"""An answer -> the columns of its label's table, and what is odd about its form.

One function for each table. Does not judge what an answer says (see `pipeline.quality`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.recipes.asks import Ask
from pipeline.recipes.boxes import Box, parse_boxes, without_marks
from schemas.recipe_file import StepFile, Style
from schemas.rows import ImageRow

PARSERS_VERSION = "2"
"""Part of every recipe's digest: to be changed with what a function here makes of an answer."""

_FENCED = re.compile(r"```[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)(?:\n?```|\Z)", re.DOTALL)
_WRAPPER = re.compile(r"(?:[^\n#|>*`-][^\n]*\n\s*)?```[ \t]*(?P<language>\w*)[ \t]*\n")
"""At the beginning of an answer, after one line of introduction at most."""
_PAGE_LANGUAGES = frozenset(("", "markdown", "md", "text", "txt", "plaintext"))
_MARKUP_LANGUAGES = frozenset(("html", "latex", "tex"))
_FENCE_LINE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_LIST_MARK = re.compile(r"\s*(?:[-*•]|\(?\d{1,3}[.):])\s+")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """`text` is what the answer says, as far as gates judge it."""

    values: Mapping[str, Any]
    text: str
    flags: tuple[str, ...] = ()
    boxes: tuple[Box, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a parser looks at."""

    text: str
    step: StepFile
    style_name: str
    style: Style
    ask: Ask
    row: ImageRow
    instruction: str = ""
    """The prompt's own words."""
    box_label: str = ""
    """The boxes' name, where the step asks for boxes."""


def parse(table: str, answered: Answered) -> Parsed:
    return _BY_TABLE[table](answered)


def lines_of(text: str) -> list[str]:
    """The entries of a listed answer, without bullets and numbers, nor a heading such as "Questions:" before them; each
    once, in order."""
    lines = [line for line in (_LIST_MARK.sub("", f"{line} ", 1).strip() for line in text.splitlines()) if line]
    if len(lines) > 1 and lines[0].endswith((":", "：")):
        del lines[0]
    return list(dict.fromkeys(lines))


def place_of_boxes(step: StepFile, row: ImageRow) -> int:
    """Which of the sample's images the boxes of an answer lie in."""
    return len(row.images) - 1 if step.box_image == "last" else 0


def _caption(answered: Answered) -> Parsed:
    text = answered.text.strip()
    return Parsed(values={"caption": text, "style": answered.style_name}, text=text)


def _ocr(answered: Answered) -> Parsed:
    text = _unwrapped(answered.text).strip()
    return Parsed(values={"text": text}, text=text)


def _qa(answered: Answered) -> Parsed:
    reasoning, answer, flags = _final_answer(answered.text.strip(), answered.style.final_answer)
    ask, row = answered.ask, answered.row
    question_images = row.turns[ask.turn - 1].images if ask.turn is not None else tuple(range(len(row.images)))
    first = ask.item == 0
    values = {
        "question": ask.question,
        "answer": answer,
        "original_answer": ask.original_answer,
        "reasoning": reasoning,
        "system": next((turn.text for turn in row.turns if turn.role == "system"), None) if first else None,
        "question_images": list(question_images) if first or ask.turn is not None else [],
    }
    return Parsed(values=values, text=answered.text.strip(), flags=flags)


def _visual_prompt(answered: Answered) -> Parsed:
    text, mark = answered.text.strip(), answered.ask.mark
    assert mark is not None, "a visual prompt is asked of a mark"
    question = answered.ask.question or answered.instruction
    drawn = {"kind": mark.kind, "points": [{"x": x, "y": y} for x, y in mark.points], "color": mark.color}
    return Parsed(values={"question": question, "answer": text, "mark": drawn}, text=text)


def _grounding(answered: Answered) -> Parsed:
    row, label = answered.row, answered.box_label
    index = place_of_boxes(answered.step, row)
    # Past the label, which is data: it may spell the marks of a box.
    text = answered.text.removeprefix(f"<|ref|>{label}<|/ref|>")
    image = row.images[index]
    parsed = parse_boxes(text, default_label=label, width_px=image.width_px, height_px=image.height_px)
    values = {
        "query": answered.ask.question or None,
        "text": answered.text,
        "boxes": [asdict(box) for box in parsed.boxes],
        "image_index": index,
    }
    return Parsed(values=values, text=answered.text, flags=parsed.flags, boxes=parsed.boxes)


def _grounded_caption(answered: Answered) -> Parsed:
    row = answered.row
    parsed = parse_boxes(answered.text, default_label="", width_px=row.width_px, height_px=row.height_px)
    caption = without_marks(answered.text)
    values = {"caption": caption, "text": answered.text, "boxes": [asdict(box) for box in parsed.boxes]}
    return Parsed(values=values, text=caption, flags=parsed.flags, boxes=parsed.boxes)


def _code(answered: Answered) -> Parsed:
    code = _unfenced(answered.text).strip("\n").rstrip()
    return Parsed(values={"code": code}, text=code)


def _score(answered: Answered) -> Parsed:
    text, of = answered.text.strip(), answered.ask.of
    assert of is not None, "a score is of a label"
    score = int(text) if text.isdecimal() else None
    values = {"score": score, "text": answered.ask.values["text"], "of_recipe": of.recipe, "of_item": of.item}
    return Parsed(values=values, text=text, flags=() if score is not None else ("score_absent",))


_BY_TABLE: dict[str, Callable[[Answered], Parsed]] = {
    "captions": _caption,
    "grounded_captions": _grounded_caption,
    "ocr": _ocr,
    "qa": _qa,
    "visual_prompts": _visual_prompt,
    "grounding": _grounding,
    "code": _code,
    "scores": _score,
}


def _final_answer(text: str, mark: str | None) -> tuple[str | None, str, tuple[str, ...]]:
    """(reasoning, final answer, flags): the answer is what follows the mark where it begins a line the last time."""
    if mark is None:
        return None, text, ()
    begins = list(re.finditer(rf"^[ \t*#>]*{re.escape(mark)}", text, re.MULTILINE | re.IGNORECASE))
    answer = text[begins[-1].end() :].strip().strip("*").strip() if begins else ""
    if not answer:
        return text, "", ("final_answer_absent",)
    return text[: begins[-1].start()].strip(), answer, ()


def _unfenced(text: str) -> str:
    """What stands in the first fence, if the answer has one; a fence that does not end goes to the end of the text."""
    fenced = _FENCED.search(text)
    return fenced["code"] if fenced else text


def _unwrapped(text: str) -> str:
    """A transcription without the fence around it. Blocks of code that a page has are the page's own and stay."""
    text = text.strip()
    begin = _WRAPPER.match(text)
    if begin is None:
        return text
    language, body = begin["language"].casefold(), text[begin.end() :]
    ends = list(_FENCE_LINE.finditer(body))
    if language in _MARKUP_LANGUAGES:
        return body[: ends[0].start()] if ends else body
    if language not in _PAGE_LANGUAGES or len(ends) % 2 == 0:
        return body if language in _PAGE_LANGUAGES and not ends else text
    is_named = bool(language)
    if not is_named and (len(ends) > 1 or body[ends[0].end() :].strip()):
        return text  # the page begins with a block of code
    return body[: ends[-1].start()]
