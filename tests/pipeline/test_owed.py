"""What a recipe owes each sample, counted from the manifest, is what it makes when it is asked."""

import asyncio
import itertools

import numpy as np
import pyarrow as pa
import pytest

from pipeline.manifest import image_rows, read_shard, write_manifest
from pipeline.owed import ANY_NUMBER, OWED_COLUMNS, owed_labels
from pipeline.recipes import make_recipes
from pipeline.recorded_recipes import RecordedRecipe
from pipeline.source import SourceRow
from pipeline.storage import join_uri
from schemas.recipe_specs import RecipeSpec
from schemas.rows import Mark, RowImage, Turn
from tests.pipeline.asked import put_recipe
from tests.pipeline.outputs import ScriptedView, ScriptedViews

IMAGE = RowImage(uri="a.jpg")
ARROW = Mark(kind="arrow", points=((0.0, 0.0), (1.0, 1.0)))
TURNS = tuple(Turn(role=role, text=role) for role in ("system", "user", "assistant", "user", "assistant", "user"))

SAMPLES = {
    "an image": SourceRow(images=(IMAGE,), place="t#0"),
    "two images": SourceRow(images=(IMAGE, IMAGE), place="t#1"),
    "no image": SourceRow(images=(), place="t#2"),
    "questions": SourceRow(images=(IMAGE,), place="t#3", questions=("Why?", "How?")),
    "queries": SourceRow(images=(IMAGE,), place="t#4", queries=("a", "b", "c")),
    "marks": SourceRow(images=(IMAGE,), place="t#5", marks=(ARROW, ARROW)),
    "conversation": SourceRow(images=(IMAGE,), place="t#6", turns=TURNS),
    "conversation without images": SourceRow(images=(), place="t#7", turns=TURNS),
    "assistant alone": SourceRow(images=(IMAGE,), place="t#8", turns=(Turn(role="assistant", text="hello"),) * 2),
}
FILES = {
    "once": "steps: [{prompts: [It.]}]",
    "text": "min_images: 0\nsteps: [{prompts: [It.]}]",
    "pairs": "min_images: 2\nsteps: [{prompts: [It.]}]",
    "asked": "table: qa\nsteps: [{each: questions, prompts: ['{question}']}]",
    "found": "table: grounding\nsteps: [{each: queries, prompts: ['{query}'], answer: boxes, box_label: '{query}'}]",
    "marked": "table: visual_prompts\nsteps: [{each: marks, images: marked, prompts: ['{mark}']}]",
    "marked-and-asked": "table: visual_prompts\nsteps: [{each: marks, images: marked, prompts: ['{mark}{question}']}]",
    "talk": "table: qa\nmin_images: 0\nsteps: [{each: turns, prompts: ['{question}']}]",
    "first-then-once": "steps: [{name: a, prompts: [It.], answer: lines}, {prompts: ['{a}']}]",
    "lines": "table: qa\nsteps: [{name: a, prompts: [It.], answer: lines}, {each: a, prompts: ['{each}']}]",
    "scores": "table: scores\nmin_images: 0\n"
    "steps: [{each: labels, prompts: ['{text}'], images: none, answer: choice, choices: ['1']}]",
}


class Samples:
    """A source of these."""

    num_ignored = 0
    carried_schema = None

    def rows(self):
        return iter(SAMPLES.values())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("manifest"))
    (shard,) = write_manifest(Samples(), folder, limit=None).shards
    return join_uri(folder, shard)


def owed_and_made(manifest, folder, name, **values):
    """By sample: the fewest and the most labels owed, and how many came of it."""
    caption = RecipeSpec(name="caption")
    spec = RecipeSpec(name=put_recipe(folder, FILES[name], name), **values)
    *_, recipe = make_recipes([*([caption] if spec.of else []), spec], checkpoint_digest="c")
    recorded = RecordedRecipe(id=name, spec=spec, file=recipe.loaded.file)
    owed_2N = np.concatenate(
        [owed_labels(recorded, batch) for batch in read_shard(manifest, columns=OWED_COLUMNS, batch_rows=4)], axis=1
    )
    table = pa.Table.from_batches(read_shard(manifest)).combine_chunks().to_batches()[0]
    rows = image_rows(table, manifest_shard="", recipes=itertools.repeat((name,), table.num_rows))
    views = ScriptedViews(ScriptedView("1\n2\n3"))
    made = [len(asyncio.run(recipe.label(views, row, {}))) for row in rows]
    return {
        sample: (int(fewest), int(most), num_labels)
        for sample, fewest, most, num_labels in zip(SAMPLES, *owed_2N, made, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("once", {}, {sample: 1 for sample, row in SAMPLES.items() if row.images}),
        ("text", {}, dict.fromkeys(SAMPLES, 1)),
        ("pairs", {}, {"two images": 1}),
        ("asked", {"questions_from": "q"}, {"questions": 2}),
        ("asked", {"questions": ("Why?",)}, {sample: 1 for sample, row in SAMPLES.items() if row.images}),
        ("found", {"queries_from": "q"}, {"queries": 3}),
        ("marked", {"marks_from": "m"}, {"marks": 2}),
        ("marked-and-asked", {"marks_from": "m", "questions": ("a", "b", "c")}, {"marks": 6}),
        ("talk", {}, {"conversation": 2, "conversation without images": 2}),
        ("first-then-once", {}, {sample: 1 for sample, row in SAMPLES.items() if row.images}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_owed_is_what_is_made(manifest, tmp_path, name, values, expected):
    counted = owed_and_made(manifest, tmp_path, name, **values)
    assert counted == {sample: (expected.get(sample, 0),) * 3 for sample in SAMPLES}


@pytest.mark.parametrize(("name", "values"), [("lines", {}), ("scores", {"of": ("caption",)})])
def test_number_that_follows_from_answers_may_be_any(manifest, tmp_path, name, values):
    counted = owed_and_made(manifest, tmp_path, name, **values)
    assert {(fewest, most) for fewest, most, _ in counted.values()} == {(0, ANY_NUMBER)}
