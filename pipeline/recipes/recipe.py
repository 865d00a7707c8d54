"""A recipe of a job -> labels of one sample: its steps in turn, over views that are opened once.

Knows the fields of an answer and how a view is asked, not the engine, nor where labels are written.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.quality import QUALITY_VERSION
from pipeline.recipes.asks import EarlierLabels, asks_of, text_of_label
from pipeline.recipes.decode import Accepted, Decode, View, Views
from pipeline.recipes.facts import facts_of
from pipeline.recipes.files import LoadedRecipe
from pipeline.recipes.parsers import PARSERS_VERSION, lines_of
from pipeline.recipes.prompts import text_of
from pipeline.recipes.watch import Watch
from schemas.recipe_file import FACTS, StepFile
from schemas.recipe_specs import RecipeSpec
from schemas.rows import ImageRow, Label

__all__ = ["EarlierLabels", "Recipe", "View", "Views"]

_NOT_IN_DIGEST = {"name", "about"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe of one job. Pickled to the workers, a user's own function included."""

    name: str
    """Its id in the job: what its labels carry in the column `recipe`."""
    spec: RecipeSpec
    loaded: LoadedRecipe
    needs: Mapping[str, str]
    """By what a prompt calls it, the id of a recipe whose labels this one reads; it runs before."""
    digest: str
    """Of everything that its labels follow from, beside the image."""
    is_written: bool = True
    """False: it runs for the recipes that need it, and its labels are left out of the dataset."""

    @property
    def table(self) -> str:
        return str(self.loaded.file.table)

    async def label(
        self, views: Views, row: ImageRow, earlier: EarlierLabels, watch: Watch | None = None
    ) -> list[Label]:
        """Runs all steps; labels come in the order of what was asked. Of an earlier recipe that is not there, because a
        gate rejected what it said, nothing is quoted, and the labels are flagged `without_<recipe>`.

        All or nothing: the first answer that raises ends the others, and its error is raised.

        Raises:
            RejectedAnswerError: a gate that rejects was not passed, in no attempt.
        """
        file = self.loaded.file
        if not file.takes(len(row.images)):
            return []
        quoted = self._quoted(row, earlier)
        lines: dict[str, list[str]] = {}
        for step in file.steps[:-1]:
            for accepted in await self._answers(step, views, row, quoted, lines, earlier, watch):
                quoted[step.name] = accepted.text
                lines.setdefault(step.name, []).extend(self._listed(accepted.text))
        answers = await self._answers(file.last, views, row, quoted, lines, earlier, watch)
        return [self._label(accepted) for accepted in answers]

    async def _answers(
        self,
        step: StepFile,
        views: Views,
        row: ImageRow,
        quoted: Mapping[str, str],
        lines: Mapping[str, Sequence[str]],
        earlier: EarlierLabels,
        watch: Watch | None,
    ) -> list[Accepted]:
        asks = asks_of(step, self.spec, row, lines=lines, earlier=earlier)
        flags = tuple(f"without_{called}" for called, recipe in self.needs.items() if recipe not in earlier)
        decode = Decode(
            recipe=self.loaded,
            name=self.name,
            spec=self.spec,
            step=step,
            row=row,
            quoted=quoted,
            flags=flags,
            watch=watch,
        )
        if step.each != "turns":
            return await _all_or_nothing([decode.answer(views, ask) for ask in asks])
        accepted: list[Accepted] = []
        for ask in asks:  # a turn is answered in sight of the answers before it
            accepted.append(await decode.answer(views, ask, answered={one.ask.turn: one.text for one in accepted}))
        return accepted

    def _quoted(self, row: ImageRow, earlier: EarlierLabels) -> dict[str, str]:
        """What a hint or `{count}` stands for; where there is nothing, nothing."""
        count = self.spec.count or self.loaded.file.count
        texts = {
            called: "\n".join(text_of_label(label) for label in earlier.get(recipe, ())).strip()
            for called, recipe in self.needs.items()
        }
        return {"count": str(count or ""), **facts_of(row), **texts}

    def _listed(self, text: str) -> list[str]:
        return lines_of(text)[: self.spec.count or self.loaded.file.count]

    def _label(self, accepted: Accepted) -> Label:
        return Label(
            recipe=self.name,
            recipe_digest=self.digest,
            table=self.table,
            item=accepted.ask.item,
            instruction=accepted.wording.instruction,
            variant=accepted.wording.variant,
            prompt=text_of(accepted.wording.prompt),
            parameters=json.dumps(accepted.parameters, ensure_ascii=False),
            num_prompt_tokens=accepted.answer.num_prompt_tokens,
            num_output_tokens=accepted.answer.num_output_tokens,
            finish_reason=accepted.answer.finish_reason,
            mean_logprob=accepted.answer.mean_logprob,
            attempts=accepted.num_attempts,
            flags=accepted.flags,
            values={**accepted.values, **self.loaded.file.values},
        )


def digest_of(loaded: LoadedRecipe, spec: RecipeSpec, *, name: str, checkpoint: str, needs: Mapping[str, str]) -> str:
    """16 hex digits of all that the labels of a recipe follow from, beside the sample.

    Defaults are left out, so that a key that a later version adds changes no digest of those who do not use it.

    Args:
        needs: by what the recipe calls them, digests of the recipes whose labels it reads.
    """
    file = loaded.file.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_IN_DIGEST)
    record = {
        "file": file,
        "function": loaded.function_source,
        "spec": spec.model_dump(mode="json", exclude_defaults=True, exclude={"name", "id"}),
        "name": name,  # random streams follow from it
        "versions": [PARSERS_VERSION, QUALITY_VERSION],
        "checkpoint": checkpoint,
        "needs": dict(needs),
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def needed_names(loaded: LoadedRecipe, spec: RecipeSpec) -> list[str]:
    """Of the recipes whose labels are quoted or looked at, as the recipe file and the job call them."""
    hints = [hint for hint, by_default in loaded.file.hints.items() if _is_given(hint, by_default, spec)]
    return list(dict.fromkeys([*(hint for hint in hints if hint not in FACTS), *spec.of]))


def needed_facts(loaded: LoadedRecipe, spec: RecipeSpec) -> set[str]:
    """Which parts of the sample are read: of `OF_THE_ROW` and `FACTS`."""
    facts = {hint for hint, by_default in loaded.file.hints.items() if _is_given(hint, by_default, spec)} & {*FACTS}
    return facts | loaded.file.repeats_for()


def _is_given(hint: str, by_default: bool, spec: RecipeSpec) -> bool:
    return by_default if spec.hints is None else hint in spec.hints


async def _all_or_nothing(answers: Sequence[Awaitable[Accepted]]) -> list[Accepted]:
    """Concurrently; the first that raises ends the others."""
    runs = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return list(await asyncio.gather(*runs))
    finally:
        for run in runs:
            run.cancel()  # those that are done do not notice; the others would answer nobody
