"""A step of a recipe and one sample -> what is asked about the sample, one `Ask` for each answer that is wanted.

How much a step is repeated follows from the sample alone, or from what earlier steps and recipes have answered; the
check of a finished dataset counts in the same way (`pipeline.owed`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.recipe_file import StepFile
from schemas.recipe_specs import RecipeSpec
from schemas.rows import ImageRow, Label, Mark

EarlierLabels = Mapping[str, Sequence[Label]]
"""Labels of the recipes that ran before on the same sample, by the recipes' ids."""

TEXT_COLUMNS = ("caption", "answer", "code", "text")
"""Where the text of a label stands, whatever its table; the first that there is."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """`item` is its place among the labels that a recipe owes the sample."""

    item: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    """What the placeholders of a template stand for."""
    original_answer: str | None = None
    turn: int | None = None
    """Which of the sample's turns is to be answered anew."""
    mark: Mark | None = None
    of: Label | None = None
    """The label that is looked at."""

    @property
    def question(self) -> str:
        """What the data asks; "" where the recipe's own words are all."""
        return self.values.get("question") or self.values.get("query") or self.values.get("each") or ""


def asks_of(
    step: StepFile, spec: RecipeSpec, row: ImageRow, *, lines: Mapping[str, Sequence[str]], earlier: EarlierLabels
) -> list[Ask]:
    """Args:
    lines: by the names of earlier steps, what each of them has listed.
    """
    match step.each:
        case None:
            return [Ask()]
        case "questions":
            return _questions(spec, row)
        case "queries":
            return [Ask(item=i, values={"query": query}) for i, query in enumerate(spec.queries or row.queries)]
        case "turns":
            return [
                Ask(
                    item=item,
                    values={"question": row.turns[turn - 1].text},
                    original_answer=row.turns[turn].text,
                    turn=turn,
                )
                for item, turn in enumerate(answered_turns([turn.role for turn in row.turns]))
            ]
        case "marks":
            return _marks(spec, row)
        case "labels":
            return _labels(spec, earlier)
        case _:
            return [Ask(item=i, values={"each": line}) for i, line in enumerate(lines[step.each])]


def answered_turns(roles: Sequence[str]) -> list[int]:
    """The places of the assistant's turns that follow a user's: what can be answered anew."""
    return [i for i in range(1, len(roles)) if roles[i] == "assistant" and roles[i - 1] == "user"]


def text_of_label(label: Label) -> str:
    """What a label says: its caption, answer, code or transcription."""
    return next((str(label.values[column]) for column in TEXT_COLUMNS if label.values.get(column)), "")


def _questions(spec: RecipeSpec, row: ImageRow) -> list[Ask]:
    """The job's list, or those of the sample's own row in the source, with the answers that it had."""
    originals = () if spec.questions else row.original_answers
    return [
        Ask(
            item=item,
            values={"question": question},
            original_answer=originals[item] if item < len(originals) else None,
        )
        for item, question in enumerate(spec.questions or row.questions)
    ]


def _marks(spec: RecipeSpec, row: ImageRow) -> list[Ask]:
    asked = [(mark, question) for mark in row.marks for question in spec.questions or ("",)]
    return [
        Ask(item=item, values={"mark": f"{mark.color} {mark.kind}", "question": question}, mark=mark)
        for item, (mark, question) in enumerate(asked)
    ]


def _labels(spec: RecipeSpec, earlier: EarlierLabels) -> list[Ask]:
    labels = [label for recipe in spec.of for label in earlier.get(recipe, ())]
    return [Ask(item=item, values={"text": text_of_label(label)}, of=label) for item, label in enumerate(labels)]
