"""Outputs made by the real stages, with a scripted view in the model's place and without a cluster."""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.finalize import Accounts, finalize
from pipeline.parquet_members import open_table
from pipeline.sink import LabelSink
from pipeline.storage import join_uri, open_store
from pipeline.work import Work, inspect
from schemas.errors import ErrorKind, RowError
from schemas.job import JobSpec
from schemas.rows import ImageRow, Label, Mark, to_columns

MISSING = RowError(kind=ErrorKind.MISSING, message="no such object")
BUSY = RowError(kind=ErrorKind.ENGINE_ERROR, message="RuntimeError: out of memory")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a recipe sees of a completion."""

    text: str
    finish_reason: str = "stop"
    mean_logprob: float = -0.25
    num_prompt_tokens: int = 7
    num_output_tokens: int = 3


class ScriptedView:
    """Opened images that answer with these texts in turn, the last one for ever, and remember what they were asked."""

    def __init__(self, *texts: str, **said: Any) -> None:
        self.texts = texts or ("seen",)
        self.said = said
        self.prompts: list[tuple] = []
        self.conversations: list[list] = []
        self.params: list[dict[str, Any]] = []
        self.looked_at: list[str | Mark] = []

    async def generate(self, text: Sequence, **params: Any) -> Said:
        self.prompts.append(tuple(text))
        return self._answer(params)

    async def chat(self, messages: Sequence, **params: Any) -> Said:
        self.conversations.append(list(messages))
        return self._answer(params)

    def _answer(self, params: dict[str, Any]) -> Said:
        self.params.append(params)
        return Said(text=self.texts[min(len(self.params), len(self.texts)) - 1], **self.said)


class ScriptedViews:
    """The views of one sample: one and the same, which also remembers what was to be looked at."""

    def __init__(self, view: ScriptedView) -> None:
        self.view = view

    async def all_images(self) -> ScriptedView:
        return self._view("all images")

    async def no_images(self) -> ScriptedView:
        return self._view("no image")

    async def marked(self, mark: Mark) -> ScriptedView:
        return self._view(mark)

    def _view(self, what: str | Mark) -> ScriptedView:
        self.view.looked_at.append(what)
        return self.view


def job_of(source: object, output: object, recipes: Sequence = ("ocr",), **values: Any) -> JobSpec:
    """Of a source by its URI, or by its whole mapping."""
    source = source if isinstance(source, dict) else str(source)
    return JobSpec(name="test", source=source, output=str(output), recipes=tuple(recipes), **values)


def put_images(folder_uri: object, *names: str) -> str:
    """Files with the names of images: nothing here looks into them."""
    for name in names:
        open_store(str(folder_uri)).put(join_uri(str(folder_uri), name), name.encode())
    return str(folder_uri)


def resolve(job: JobSpec, **how: Any) -> Work:
    """What a run makes of its job before it labels."""
    return inspect(job).resolve(**how)


def pending(work: Work) -> list[ImageRow]:
    return [row for shard in work.shards for rows in work.folder.pending(shard, work.wanted) for row in rows]


def labelled(work: Work, row: ImageRow, *, says: str = "seen", error: RowError | None = None) -> ImageRow:
    """The row with a label of every pending recipe, or with those recipes failed."""
    if error is not None:
        return dataclasses.replace(row, recipe_errors=tuple((recipe, error) for recipe in row.recipes))
    seen = {"sha256": "0" * 64, "width_px": 40, "height_px": 30, "tiles_wide": 1, "tiles_high": 1}
    images = tuple(dataclasses.replace(image, **seen) for image in row.images)
    row = dataclasses.replace(row, images=images)
    done: dict[str, list[Label]] = {}
    for recipe in work.recipes:
        done[recipe.name] = asyncio.run(recipe.label(ScriptedViews(ScriptedView(says)), row, done))
    return dataclasses.replace(row, labels=tuple(label for name in row.recipes for label in done[name]))


def commit(work: Work, *rows: ImageRow) -> dict[str, list[int]]:
    """Writes one block; gives the receipt."""
    return LabelSink(config=work.sink_config)(to_columns(rows))


def commit_all(work: Work) -> None:
    """Every pending image in a block of its own."""
    for row in pending(work):
        commit(work, labelled(work, row))


def finalized(work: Work, **how: Any) -> Accounts:
    return finalize(
        work.folder,
        shards=work.shards,
        tables=work.tables,
        recipe_digests=work.recipe_digests,
        carried_schema=work.carried_schema,
        **how,
    )


def files_below(folder_uri: str) -> list[str]:
    return [info.uri.removeprefix(f"{folder_uri}/") for info in open_store(folder_uri).list_or_empty(folder_uri)]


def table_at(output: object, table: str) -> pa.Table:
    """All parts of a written table, in their order."""
    parts = []
    for info in open_store(str(output)).list(join_uri(str(output), table)):
        with open_table(info.uri) as part:
            parts.append(part.read())
    return pa.concat_tables(parts)


def names_in(output: object, table: str) -> list[str]:
    """The file names of a table's images, in its order."""
    return [uri.rpartition("/")[2] for uri in table_at(output, table)["image_uri"].to_pylist()]
