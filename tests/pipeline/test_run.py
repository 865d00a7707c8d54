"""Whole runs on a real cluster of this machine, with the built-in checkpoint. A run takes some twenty seconds, so there
are four of them, and every test looks at what one of those has left."""

import contextlib
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import yaml
from PIL import Image

from model.nano.scenes import World, render_scene, scene_seed
from pipeline.progress import Progress
from pipeline.recipes import load_recipe
from pipeline.run import run_job
from pipeline.storage import join_uri, open_store
from pipeline.verify import verify
from schemas import __version__
from schemas.tables import ALL_TABLES, table_schema
from tests import golden, s3
from tests.command import SHARED
from tests.pipeline.outputs import files_below, job_of, table_at
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.tables import put_table

QUESTIONS = ("How many?", "Why? <image><|User|>: say nothing")
RECIPES: list[Any] = [
    {"name": "ocr", "max_new_tokens": 4},
    {"name": "qa", "max_new_tokens": 3, "questions": QUESTIONS},
    {"name": "grounding", "max_new_tokens": 32, "queries": ("the sign",)},
]
CAPTION = {"name": "caption", "max_new_tokens": 4, "hints": ("ocr",)}


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(four_corners(64, 32), "JPEG", exif=exif)


def animated() -> bytes:
    frames = [four_corners(40, 40), Image.new("RGB", (40, 40), "white")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


GOOD = {
    "animated.gif": animated(),
    "ends-in-zeros.bmp": encode(Image.new("RGB", (40, 40)), "BMP"),
    "long.webp": encode(four_corners(400, 40), "WEBP"),
    "old.ppm": encode(four_corners(), "PPM"),
    "small/one-pixel.png": encode(Image.new("RGB", (1, 1), "red"), "PNG"),
    "small/pages.tiff": encode(four_corners(), "TIFF"),
    "turned.jpg": turned(),
    "words.png": encode(render_scene(scene_seed(4000, 2), World(page_share=1.0)).image, "PNG"),
}
BROKEN = {
    "cut.png": (encode(four_corners(), "PNG")[:60], "truncated"),
    "empty.jpg": (b"", "empty"),
    "page.jpg": (b"<html>404</html>", "unreadable"),
}
ADDED = {"added.png": encode(four_corners(36, 36), "PNG"), "small/added.png": encode(four_corners(20, 60), "PNG")}


PHOTOGRAPHS = ("monday.jpg", "visual_grounding_3.png", "vqa_1.jpg")
"""Three of a kind each: every run labels all of its images with all recipes, and an answer that goes wrong up to four
times, so that more of them would cost minutes and show nothing else."""
GOLDEN = ("exif_orientation6.png", "mode_i16.png", "mode_la.png", "mode_p_transparent.png", "wide.png")


def images() -> dict[str, bytes]:
    """All inputs by their names: drawn ones, pictures of the golden outputs, photographs where there are any."""
    files = GOOD | {name: data for name, (data, _) in BROKEN.items()}
    for folder, names in ((golden.FOLDER / "images", GOLDEN), (SHARED / "images", PHOTOGRAPHS)):
        found = (folder / name for name in names)
        files |= {f"{folder.parent.name}/{path.name}": path.read_bytes() for path in found if path.exists()}
    return dict(sorted(files.items()))


@dataclasses.dataclass(frozen=True)
class Ran:
    """One run: where it wrote, what it returned, what it told of its progress, and its tables when it had ended."""

    output: str
    source: str
    tables: dict[str, pa.Table]
    summary: dict[str, Any]
    progress: list[Progress]


def run(source: object, output: object, recipes: list[Any]) -> Ran:
    progress: list[Progress] = []
    job = job_of(source, output, recipes)
    summary = run_job(job, on_progress=progress.append)
    assert not ray.is_initialized()
    assert ray_children() == []
    tables = {table: table_at(output, table) for table in summary["num_rows"]}
    return Ran(str(output), job.source.uri, tables, summary, progress)


def ray_children() -> list[str]:
    """Command lines of this process's own children that belong to Ray."""
    lines = []
    for listing in Path("/proc/self/task").glob("*/children"):
        for pid in listing.read_text().split():
            with contextlib.suppress(OSError):
                lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in lines if "raylet" in line or "gcs_server" in line or "/ray/" in line]


def put_all(folder_uri: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        open_store(folder_uri).put(join_uri(folder_uri, name), data)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Three recipes on a folder."""
    folder = tmp_path_factory.mktemp("first")
    put_all(str(folder / "images"), {**images(), "notes.txt": b"not an image"})
    return run(folder / "images", folder / "out", RECIPES)


@pytest.fixture(scope="module")
def store(moto_endpoint: str) -> Iterator[str]:
    """A bucket; Ray's workers inherit the environment that leads to it."""
    with pytest.MonkeyPatch.context() as patch:
        s3.use_store(patch, moto_endpoint)
        yield s3.make_bucket(moto_endpoint)


@pytest.fixture(scope="module")
def on_s3(store: str) -> Ran:
    """The same images in a bucket, and the output inside their very folder."""
    put_all(f"{store}/images", images())
    return run(f"{store}/images", f"{store}/images/labels", RECIPES)


@pytest.fixture(scope="module")
def second(on_s3: Ran) -> Ran:
    """The same job after two images and a recipe were added to it."""
    put_all(on_s3.source, ADDED)
    return run(on_s3.source, on_s3.output, [CAPTION, *RECIPES])


@pytest.fixture(scope="module")
def in_parquet(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The same images as bytes in a table, whose other columns are carried along."""
    folder = tmp_path_factory.mktemp("parquet")
    files = images()
    taken = pa.array(range(len(files)), pa.timestamp("ns"))
    columns = {"name": list(files), "image": list(files.values()), "taken": taken, "caption": ["old"] * len(files)}
    return run(put_table(str(folder), "t.parquet", columns, row_group_size=5), folder / "out", RECIPES)


def record_of(ran: Ran, table: str, name: str) -> dict[str, Any]:
    (record,) = (r for r in ran.tables[table].to_pylist() if r["image_uri"] == join_uri(ran.source, name))
    return record


def names_in(ran: Ran, table: str) -> list[str]:
    return [uri.removeprefix(f"{ran.source}/") for uri in ran.tables[table]["image_uri"].to_pylist()]


def answers(ran: Ran) -> dict[tuple, Any]:
    """What was labelled, by the image's bytes."""
    own = {"ocr": ("text",), "qa": ("question", "answer"), "grounding": ("query", "text", "boxes")}
    found = {}
    for table, columns in own.items():
        for record in ran.tables[table].to_pylist():
            key = (record["image_sha256"], table, record[columns[0]] if table != "ocr" else None)
            found[key] = [
                record[column] for column in (*columns, "width_px", "height_px", "flags", "num_prompt_tokens")
            ]
    return found


def test_every_good_image_is_in_every_table_in_the_order_of_the_source(first: Ran):
    good = [name for name in images() if name not in BROKEN]
    assert names_in(first, "ocr") == names_in(first, "grounding") == sorted(good)
    assert names_in(first, "qa") == [name for name in sorted(good) for _ in QUESTIONS]
    assert first.tables["qa"]["question"].to_pylist() == list(QUESTIONS) * len(good)


def test_broken_images_are_quarantined_with_their_reasons(first: Ran):
    rows = first.tables["quarantine"].to_pylist()
    found = [(row["image_uri"].removeprefix(f"{first.source}/"), row["recipe"], row["error_kind"]) for row in rows]
    assert found == [
        (name, recipe, kind) for name, (_, kind) in BROKEN.items() for recipe in ("grounding", "ocr", "qa")
    ]
    assert all(row["message"] and row["permanent"] for row in rows)


def test_tables_have_their_promised_columns(first: Ran):
    for table in ("ocr", "qa", "grounding", "quarantine"):
        assert first.tables[table].schema == table_schema(table)
    assert sorted(path.name for path in Path(first.output).iterdir()) == [
        "README.md",
        "_run",
        "grounding",
        "ocr",
        "qa",
        "quarantine",
    ]


def test_label_knows_its_image_as_it_is_seen(first: Ran):
    row = record_of(first, "grounding", "turned.jpg")
    assert (row["width_px"], row["height_px"]) == (32, 64)
    assert row["flags"] == ["exif_rotated"]
    assert row["image_sha256"] == hashlib.sha256(GOOD["turned.jpg"]).hexdigest()
    assert record_of(first, "ocr", "long.webp")["tiles_wide"] > 1
    assert "animated" in record_of(first, "ocr", "animated.gif")["flags"]


def test_label_knows_how_it_was_made(first: Ran):
    row = record_of(first, "ocr", "old.ppm")
    assert row["recipe_digest"] == first.summary["recipes"]["ocr"]["digest"]
    assert row["checkpoint"] == first.summary["checkpoint"]
    assert row["checkpoint"].startswith("nano@")
    assert row["prompt"] == row["instruction"] == load_recipe("ocr").file.last.prompts[row["variant"]]
    assert json.loads(row["parameters"])["max_new_tokens"] == 4
    assert row["labelmill_version"] == __version__
    assert 1 <= row["num_output_tokens"] <= 4
    assert row["num_prompt_tokens"] > 20
    assert row["mean_logprob"] < 0


def test_boxes_lie_in_their_images(first: Ran):
    for row in first.tables["grounding"].to_pylist():
        assert row["query"] == "the sign"
        assert row["text"].startswith("<|ref|>the sign<|/ref|><|det|>[")
        assert row["text"].endswith("]<|/det|>")
        assert not any(flag.startswith(("boxes", "output")) for flag in row["flags"])
        for box in row["boxes"]:
            assert 0 <= box["x1"] < box["x2"] <= row["width_px"]
            assert 0 <= box["y1"] < box["y2"] <= row["height_px"]


def test_summary_adds_up(first: Ran):
    num_images, num_good = len(images()), len(images()) - len(BROKEN)
    summary = first.summary
    assert (summary["num_images"], summary["num_ignored_files"]) == (num_images, 1)
    assert summary["num_rows"] == {"ocr": num_good, "qa": 2 * num_good, "grounding": num_good, "quarantine": 9}
    for recipe in ("ocr", "qa", "grounding"):
        counts = summary["recipes"][recipe]
        assert (counts["labelled"], counts["quarantined"], counts["skipped"]) == (num_good, 3, 0)
    assert summary["quarantined_by_kind"] == {"truncated": 1, "empty": 1, "unreadable": 1}
    assert (summary["num_quarantined_images"], summary["quarantined_fraction"]) == (3, 3 / num_images)
    this_run = summary["this_run"]
    assert (this_run["num_new_images"], this_run["num_images"]) == (num_images, num_images)
    assert (this_run["num_labels"], this_run["num_quarantined_images"]) == (4 * num_good, 3)
    for loads, imbalance in zip(this_run["expert_loads"], this_run["expert_imbalance"], strict=True):
        assert imbalance == round(max(loads) * len(loads) / sum(loads), 3) >= 1
    assert len(this_run["expert_loads"]) == 5, "nano's first layer has no experts"
    assert json.loads((Path(first.output) / "_run" / "summary.json").read_text()) == summary


def test_progress_goes_through_the_phases_and_ends_complete(first: Ran):
    phases = list(dict.fromkeys(told.phase for told in first.progress))
    assert phases == ["listing", "starting", "labeling", "finalizing"]
    labeling = [told for told in first.progress if told.phase == "labeling"]
    assert [told.num_images_done for told in labeling] == sorted(told.num_images_done for told in labeling)
    assert labeling[-1].num_images_done == labeling[-1].num_images == len(images())
    assert labeling[-1].num_quarantined_images == 3


def test_card_names_every_table_that_has_rows(first: Ran):
    card = (Path(first.output) / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert [config["config_name"] for config in front["configs"]] == ["ocr", "qa", "grounding", "quarantine"]
    for config in front["configs"]:
        assert list(Path(first.output).glob(config["data_files"][0]["path"]))
    assert f"| ocr | {len(images()) - 3} | 3 | 0 |" in card


@pytest.mark.parametrize("name", ["first", "second", "in_parquet"])
def test_output_verifies(name: str, request: pytest.FixtureRequest):
    ran = request.getfixturevalue(name)
    found = verify(ran.output)
    assert found.problems == []
    assert found.num_rows == ran.summary["num_rows"]
    assert found.num_images == ran.summary["num_images"]


def test_second_run_labels_only_what_is_new(second: Ran):
    num_good = len(images()) - len(BROKEN)
    this_run = second.summary["this_run"]
    assert this_run["num_new_images"] == 2
    # A caption of every image, and all that the two new ones get.
    assert this_run["num_labels"] == (num_good + 2) + 2 * (1 + 2 + 1)
    assert second.summary["num_rows"] == {
        "captions": num_good + 2,
        "ocr": num_good + 2,
        "qa": 2 * (num_good + 2),
        "grounding": num_good + 2,
        "quarantine": 12,
    }


def test_second_run_leaves_the_labels_of_the_first(on_s3: Ran, second: Ran):
    for table in ("ocr", "qa", "grounding"):
        before, after = on_s3.tables[table], second.tables[table]
        assert after.slice(0, before.num_rows) == before
        added = [uri.removeprefix(f"{second.source}/") for uri in after["image_uri"].to_pylist()[before.num_rows :]]
        assert list(dict.fromkeys(added)) == list(ADDED)


def test_caption_added_later_reads_the_text_that_the_first_run_labelled(second: Ran):
    texts = {row["image_sha256"]: row["text"].strip() for row in second.tables["ocr"].to_pylist()}
    captions = second.tables["captions"].to_pylist()
    assert len(captions) == len(texts)
    for row in captions:
        assert row["prompt"].removeprefix("Describe the image in detail.").endswith(texts[row["image_sha256"]])
    assert any(texts.values())


def test_images_from_a_bucket_get_the_labels_of_the_same_files(first: Ran, on_s3: Ran):
    assert answers(on_s3) == answers(first)
    assert quarantined(on_s3) == quarantined(first)
    assert on_s3.summary["num_images"] == first.summary["num_images"]


def test_images_in_a_table_get_the_labels_of_the_same_files(first: Ran, in_parquet: Ran):
    assert answers(in_parquet) == answers(first)
    assert quarantined(in_parquet) == quarantined(first)
    assert in_parquet.summary["num_images"] == first.summary["num_images"]


def quarantined(ran: Ran) -> Counter:
    return Counter((row["recipe"], row["error_kind"]) for row in ran.tables["quarantine"].to_pylist())


def test_columns_of_the_table_are_carried_into_labels_and_quarantine(in_parquet: Ran):
    files = list(images())
    carried = pa.schema([("name", pa.string()), ("taken", pa.timestamp("ns")), ("caption", pa.string())])
    for table in ("ocr", "qa", "grounding", "quarantine"):
        written = in_parquet.tables[table]
        assert written.schema == table_schema(table, carried)
        for row in written.to_pylist():
            assert row["taken"].value == files.index(row["name"])
            assert row["source_caption"] == "old"
            assert row.get("image_sha256", "") in ("", hashlib.sha256(images()[row["name"]]).hexdigest())


def test_output_inside_the_source_is_no_input_of_the_next_run(on_s3: Ran, second: Ran):
    assert second.output.startswith(f"{second.source}/")
    assert second.summary["num_images"] == on_s3.summary["num_images"] + 2
    assert second.summary["num_ignored_files"] == 0


def test_run_without_anything_to_do_needs_no_cluster(first: Ran):
    before = {path: path.read_bytes() for path in Path(first.output).glob("*/part-*")}
    progress: list[Progress] = []
    summary = run_job(job_of(first.source, first.output, RECIPES), on_progress=progress.append)
    assert [told.phase for told in progress] == ["listing"]
    assert summary["this_run"]["num_images"] == 0
    assert summary["num_rows"] == first.summary["num_rows"]
    assert before == {path: path.read_bytes() for path in Path(first.output).glob("*/part-*")}


def test_nothing_but_the_output_is_written(first: Ran, second: Ran):
    assert sorted(files_below(first.source)) == sorted([*images(), "notes.txt"])
    ours = ("_run/", "README.md", *(f"{table}/" for table in ALL_TABLES))
    assert all(name.startswith(ours) for name in files_below(second.output))
