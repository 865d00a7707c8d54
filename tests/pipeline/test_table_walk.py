"""Damage of every kind, at sizes where a window ends within a shard and a shard within a window."""

import hashlib
import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from pipeline import table_walk
from pipeline.image_ids import ImageIds, id_bits
from pipeline.table_walk import ShardOfManifest, TableWalk
from tests.pipeline.tables import put_table

SHARD_SIZES = (7, 0, 20, 3)
NAMES = [hashlib.sha256(bytes([number])).hexdigest()[:32] for number in range(sum(SHARD_SIZES))]
STRANGER = "f" * 32


def shards_of(sizes=SHARD_SIZES):
    names = iter(NAMES)
    return [pa.array(itertools.islice(names, size), pa.string()) for size in sizes]


def walked(tmp_path, rows, recipes=("caption", "ocr")):
    """Rows of one table, as (id, recipe) -> (how many rows each has, in the order of the manifest; problems)."""
    columns = {"sample_id": [row[0] for row in rows], "recipe": [row[1] for row in rows]}
    half = len(rows) // 2
    uris = [
        put_table(str(tmp_path), f"{number}.parquet", {name: pa.array(of, pa.string()) for name, of in part.items()})
        for number, part in enumerate(
            ({n: c[:half] for n, c in columns.items()}, {n: c[half:] for n, c in columns.items()})
        )
    ]
    problems, counts = [], {recipe: [] for recipe in recipes}
    ids = ImageIds.of(shards_of())
    walk = TableWalk("t", uris, recipes=recipes, ids=ids, on_problem=problems.append)
    for place, sample_ids in enumerate(shards_of()):
        for recipe, of in walk.take(ShardOfManifest(place=place, sample_ids=sample_ids, num_owed_2N={})).items():
            counts[recipe] += of.tolist()
    walk.finish()
    assert walk.num_rows == len(rows)
    return counts, problems


@pytest.fixture(params=[1, 3, 10, 1000])
def window(request, monkeypatch):
    monkeypatch.setattr(table_walk, "WINDOW_ROWS", request.param)


def good_rows(seed=0):
    """Up to three rows of either recipe for each image."""
    draw = random.Random(seed)
    return [(name, recipe) for name in NAMES for recipe in ("caption", "ocr") for _ in range(draw.randrange(4))]


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seed", range(4))
def test_rows_in_the_order_of_the_manifest_are_counted_and_nothing_is_named(tmp_path, seed):
    rows = good_rows(seed)
    counts, problems = walked(tmp_path, rows)
    assert problems == []
    assert counts == {recipe: [rows.count((name, recipe)) for name in NAMES] for recipe in ("caption", "ocr")}


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("place", [0, 5, 30])
def test_stranger_is_named_once_and_disturbs_nobody(tmp_path, place):
    rows = good_rows()
    expected, _ = walked(tmp_path, rows)
    for stranger in ((STRANGER, "ocr"), (NAMES[3], "another"), ("no id", "ocr")):
        counts, problems = walked(tmp_path, [*rows[:place], stranger, *rows[place:]])
        assert counts == expected
        assert problems == [
            f"image {stranger[0]}, recipe {stranger[1]}: in a table, but not in the manifest or not in the job"
        ]


@pytest.mark.parametrize("taken_from", range(0, len(NAMES), 4))
@pytest.mark.parametrize("put_to", [0, 9, 29])
def test_row_that_stands_elsewhere_is_named_and_costs_no_other_row_its_place(tmp_path, taken_from, put_to):
    rows = [(name, "ocr") for name in NAMES]
    moved = rows.pop(taken_from)
    rows.insert(put_to, moved)
    counts, problems = walked(tmp_path, rows)
    others = [count for name, count in zip(NAMES, counts["ocr"], strict=True) if name != moved[0]]
    assert others == [1] * (len(NAMES) - 1)
    assert len(problems) == (put_to != taken_from)
    assert all("not where the order of the manifest" in problem for problem in problems)


def test_two_recipes_of_an_image_are_in_the_order_of_their_names(tmp_path):
    _, problems = walked(tmp_path, [(NAMES[0], "ocr"), (NAMES[0], "caption")])
    assert [problem.split(":")[0] for problem in problems] == [f"image {NAMES[0]}, recipe caption"]


def test_ids_know_their_shard_and_who_was_there_before():
    ids = ImageIds.of([pa.array([NAMES[5], NAMES[2]]), pa.array([], pa.string()), pa.array([NAMES[2], NAMES[9]])])
    assert ids.shards_of(pa.array([NAMES[9], NAMES[2], STRANGER, "", None])).tolist() == [2, 0, -1, -1, -1]
    asked = [ids.is_repeated(pa.array(names)).tolist() for names in ([NAMES[5], NAMES[2]], [NAMES[2], NAMES[9]])]
    assert asked == [[False, False], [True, False]]


def test_ids_that_share_their_first_half_are_told_apart():
    same = ["a" * 16 + f"{number:016x}" for number in (7 << 20, 3 << 20, 9 << 20)]
    ids = ImageIds.of([pa.array(same[:2]), pa.array(same[2:])])
    assert ids.shards_of(pa.array([*same, "a" * 16 + f"{8 << 20:016x}"])).tolist() == [0, 0, 1, -1]
    assert not ids.is_repeated(pa.array(same)).any()


def test_no_images_have_no_ids():
    ids = ImageIds.of([])
    assert ids.shards_of(pa.array([STRANGER])).tolist() == [-1]
    assert ids.is_repeated(pa.array([], pa.string())).tolist() == []


def test_bits_of_an_id_are_its_digits():
    bits = id_bits(pa.array(["0123456789abcdef" + "fedcba9876543210", "0123456789ABCDEF" * 2]))
    assert bits[0].tolist() == [0x0123456789ABCDEF, 0xFEDCBA9876543210]
    assert bits.dtype == np.uint64
    assert bits[1].tolist() != [0x0123456789ABCDEF] * 2
