"""The labels of a sample -> conversations about its pictures, in no format yet.

Text is data here: whatever it spells, which pictures stand where is said beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

CONVERSATION_TABLES = ("captions", "grounded_captions", "ocr", "qa", "visual_prompts", "grounding", "code")

_ANSWERS = {
    "captions": "caption",
    "grounded_captions": "text",
    "ocr": "text",
    "visual_prompts": "answer",
    "grounding": "text",
    "code": "code",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a recipe's labels in `qa` belong together."""

    in_turns: bool = False
    """An answer was given in sight of those before it, so a conversation ends where one is left out."""
    final_answer: str | None = None
    """The words between the reasoning and the answer."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """`pictures`: places, among those of the sample, of what stands before the question."""

    question: str
    answer: str
    pictures: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """`mark`: drawn onto its only picture; as the column `mark` has it."""

    id: str
    system: str | None = None
    exchanges: tuple[Exchange, ...]
    mark: Mapping[str, Any] | None = None


def conversations(
    sample_id: str,
    num_pictures: int,
    rows: Mapping[str, pa.Table],
    asked: Mapping[str, pa.Table],
    *,
    told: Mapping[str, Told],
) -> Iterator[Conversation]:
    """One for the questions of each recipe, and one for every other label. Turns that were answered in sight of one
    that was left out are left out with it.

    Args:
        rows: by table, those that are exported.
        asked: the same with those that were left out.
    """
    everything = tuple(range(num_pictures))
    for table in CONVERSATION_TABLES:
        if table not in rows:
            continue
        records = sorted(rows[table].to_pylist(), key=lambda record: (record["recipe"], record["item"]))
        if table == "qa":
            whole = sorted(asked[table].to_pylist(), key=lambda record: (record["recipe"], record["item"]))
            yield from _of_questions(sample_id, everything, records, whole, told)
            continue
        for record in records:
            question = record["question"] if table == "visual_prompts" else record["instruction"]
            yield Conversation(
                id=f"{sample_id}-{record['recipe']}-{record['item']}",
                exchanges=(Exchange(question=question, answer=record[_ANSWERS[table]], pictures=everything),),
                mark=record.get("mark"),
            )


def _of_questions(
    sample_id: str,
    everything: tuple[int, ...],
    records: Sequence[Mapping[str, Any]],
    whole: Sequence[Mapping[str, Any]],
    told: Mapping[str, Told],
) -> Iterator[Conversation]:
    for recipe in dict.fromkeys(record["recipe"] for record in records):
        how = told.get(recipe, Told())
        asked = [record for record in whole if record["recipe"] == recipe]
        kept = [record for record in records if record["recipe"] == recipe]
        if how.in_turns:
            items = [record["item"] for record in asked]
            kept = [record for record, item in zip(kept, items, strict=False) if record["item"] == item]
        if kept:
            yield Conversation(
                id=f"{sample_id}-{recipe}",
                system=next((record["system"] for record in asked if record["system"]), None),
                exchanges=tuple(_exchanges(kept, everything, how)),
            )


def _exchanges(records: Sequence[Mapping[str, Any]], everything: tuple[int, ...], how: Told) -> Iterator[Exchange]:
    """A picture stands before the first question that names it; if none names any, all stand before the first."""
    named = [tuple(record["question_images"] or ()) for record in records]
    if not any(named):
        named[0] = everything
    shown: set[int] = set()
    for record, pictures in zip(records, named, strict=True):
        yield Exchange(
            question=record["question"],
            answer=_answer(record, how),
            pictures=tuple(dict.fromkeys(picture for picture in pictures if picture not in shown)),
        )
        shown.update(pictures)


def _answer(record: Mapping[str, Any], how: Told) -> str:
    reasoning, answer = record["reasoning"], str(record["answer"])
    if not reasoning:
        return answer
    final = " ".join(filter(None, (how.final_answer, answer))) if answer else ""
    return "\n".join(filter(None, (reasoning, final)))
