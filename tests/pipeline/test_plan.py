"""What a plan counts, draws and sums up, and that it writes nothing; the model runs in one test only."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from model.engine_stats import EngineStats
from model.variants import variant_config
from pipeline.measure import Measured
from pipeline.placement import ClusterSize, Placement
from pipeline.plan import can_measure, plan, read_headers, spread_by_work
from pipeline.plan_cluster import PlannedCluster, described, memory_of, parts_of, planned_ranks
from pipeline.plan_facts import Sampled, forecast_facts, recipe_facts, sample_facts
from pipeline.sample import draw_rows
from pipeline.storage import open_store
from pipeline.token_counts import LAST_RUN, MEASURED, tokens_of_output, tokens_of_rows
from pipeline.work import inspect
from schemas.errors import ErrorKind, RowError
from schemas.job import EngineSpec, ResourcesSpec
from tests.pipeline.outputs import BUSY, commit, commit_all, finalized, job_of, labelled, pending, put_images, resolve
from tests.pipeline.pdfs import grey_pages
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.rows import one_image_row
from tests.pipeline.tables import IMAGE, put_table

CPUS = PlannedCluster(size=ClusterSize(num_cpus=2, num_gpus=0, gpus_by_node=(0,)))
PLACEMENT = Placement.for_cluster(CPUS.size, ResourcesSpec())
NAMES = [f"{number}.jpg" for number in range(20)]


def drawn_of(job, *, max_rows=100, seed=0):
    return draw_rows(inspect(job, probe_output=False), max_rows=max_rows, seed=seed)


def names_of(drawn):
    return [row.image_uri.rpartition("/")[2] for row in drawn.rows]


def everything_below(folder: Path):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def row_of_tiles(num_tiles: int):
    """1 + num_tiles of them, or a row that failed."""
    row = one_image_row(sample_id=str(num_tiles), image_uri="a", tiles_wide=num_tiles, tiles_high=1)
    return row if num_tiles else row.failed(RowError(kind=ErrorKind.EMPTY, message="no bytes"))


def measured_rows(work):
    """Three of four images labelled in 2 s, with 7 tokens read and 3 written for each label; one answer failed."""
    first, *others = pending(work)
    rows = (labelled(work, first, error=BUSY), *(labelled(work, row) for row in others))
    return Measured(
        rows=rows,
        labeling_s=2.0,
        tiling_s=0.4,
        num_tile_threads=1,
        load_s=0.1,
        process_start_s=2.0,
        stats=EngineStats(),
    )


def test_all_images_of_a_new_output_are_new(tmp_path):
    drawn = drawn_of(job_of(put_images(tmp_path / "photos", *NAMES, "notes.txt"), tmp_path / "out"))
    assert (drawn.num_images, drawn.num_new_images, drawn.num_to_label) == (20, 20, 20)
    assert drawn.num_ignored_files == 1
    assert sorted(names_of(drawn)) == sorted(NAMES)


def test_looking_at_a_job_writes_nothing(tmp_path):
    source = put_images(tmp_path / "photos", *NAMES)
    before = everything_below(tmp_path)
    drawn_of(job_of(source, tmp_path / "out"))
    assert everything_below(tmp_path) == before


def test_images_of_an_earlier_run_are_no_longer_new_and_the_labelled_ones_are_not_to_label(tmp_path):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    job = job_of(source, tmp_path / "out")
    commit_all(resolve(job, limit=1))
    work = resolve(job, limit=3)
    put_images(source, "d.jpg", "e.jpg")
    drawn = drawn_of(job)
    assert work.num_images == 3
    assert (drawn.num_images, drawn.num_new_images, drawn.num_to_label) == (5, 2, 4)
    assert names_of(drawn) == ["b.jpg", "c.jpg", "d.jpg", "e.jpg"]


def test_image_that_failed_for_a_reason_that_may_have_passed_is_to_label(tmp_path):
    job = job_of(put_images(tmp_path / "photos", "a.jpg", "b.jpg"), tmp_path / "out")
    work = resolve(job)
    for row in pending(work):
        commit(work, labelled(work, row, error=BUSY if row.image_uri.endswith("a.jpg") else None))
    assert names_of(drawn_of(job)) == ["a.jpg"]


def test_added_recipe_is_to_run_on_all_images(tmp_path):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg")
    commit_all(resolve(job_of(source, tmp_path / "out", ["ocr"])))
    drawn = drawn_of(job_of(source, tmp_path / "out", ["ocr", "caption"]))
    assert drawn.num_new_images == 0
    assert [row.recipes for row in drawn.rows] == [("caption",), ("caption",)]


def sampled_of(job):
    inspected = inspect(job, probe_output=False)
    return read_headers(inspected, draw_rows(inspected, max_rows=100, seed=0)).rows


def test_sizes_of_pictures_in_tables_are_read_with_one_reason_for_a_broken_one(tmp_path):
    pictures = [encode(four_corners(60, 30), "PNG"), b"no image", encode(four_corners(30, 90), "JPEG")]
    put_table(str(tmp_path / "tables"), "a.parquet", {"image": pictures})
    rows = sampled_of(job_of(tmp_path / "tables", tmp_path / "out"))
    assert [(row.width_px, row.height_px) for row in rows] == [(60, 30), (0, 0), (30, 90)]
    assert [row.error and row.error.kind for row in rows] == [None, ErrorKind.UNREADABLE, None]


def test_sample_of_three_pictures_counts_all_of_them_untiled(tmp_path):
    """More than two pictures of one sample are not tiled, however large."""
    picture = {"bytes": encode(four_corners(900, 100), "PNG"), "path": None}
    put_table(str(tmp_path / "tables"), "a.parquet", {"images": pa.array([[picture] * 3], pa.list_(IMAGE))})
    (row,) = sampled_of(job_of(tmp_path / "tables", tmp_path / "out"))
    assert [(image.tiles_wide, image.tiles_high) for image in row.images] == [(1, 1)] * 3


def test_pages_of_documents_have_the_size_at_which_they_are_rendered(tmp_path):
    open_store(str(tmp_path)).put(str(tmp_path / "pdfs/a.pdf"), grey_pages(2))
    first, second = sampled_of(job_of(tmp_path / "pdfs", tmp_path / "out"))
    assert first.error is None
    assert (first.width_px, first.height_px) == (second.width_px, second.height_px) != (0, 0)


def test_same_seed_draws_the_same_rows_in_the_order_of_the_source(tmp_path):
    job = job_of(put_images(tmp_path / "photos", *NAMES), tmp_path / "out")
    first, again, other = (names_of(drawn_of(job, max_rows=6, seed=seed)) for seed in (1, 1, 2))
    assert first == again == sorted(first)
    assert len(first) == 6
    assert first != other


def test_measured_rows_have_the_mix_of_the_rows_whose_headers_were_read():
    rows = [row_of_tiles(count) for count in [1] * 60 + [9] * 30 + [0] * 10]
    picked = spread_by_work(rows, 10, seed=0)
    counts = [row.tiles_wide for row in picked]
    assert (counts.count(1), counts.count(9), counts.count(0)) == (6, 3, 1)
    assert counts != sorted(counts), "what is measured first must be no other mix"


def test_fewer_rows_than_are_measured_are_all_taken():
    assert len(spread_by_work([row_of_tiles(1)] * 3, 64, seed=0)) == 3


def test_sample_tells_grids_tiles_and_reasons(tmp_path):
    drawn = drawn_of(job_of(put_images(tmp_path / "photos", *NAMES), tmp_path / "out"))
    facts = sample_facts(Sampled(rows=tuple(map(row_of_tiles, (1, 1, 3, 0))), took_s=0.25), drawn, seed=7)
    assert facts["grids"] == {"1x1": 2, "3x1": 1}
    assert facts["tiles_per_image"] == (2 + 2 + 4 + 0) / 4
    assert facts["num_tiles"] == 20 * 2
    assert facts["quarantined"] == {"empty": 1}


def test_tokens_of_all_images_follow_from_those_measured(tmp_path):
    job = job_of(put_images(tmp_path / "photos", *NAMES[:4]), tmp_path / "out")
    measured = measured_rows(resolve(job))
    tokens = tokens_of_rows(measured.rows)
    drawn = dataclasses.replace(drawn_of(job), num_to_label=1000)
    facts = recipe_facts(inspect(job, probe_output=False), tokens, measured, drawn)
    assert facts["ocr"]["origin"] == MEASURED
    assert (facts["ocr"]["prompt_tokens"], facts["ocr"]["output_tokens"]) == (7, 3)
    assert facts["ocr"]["labels_per_image"] == 0.75
    assert (facts["ocr"]["num_labels_expected"], facts["ocr"]["num_output_tokens_expected"]) == (750, 2250)


def test_tokens_of_a_finished_run_are_taken_from_its_tables(tmp_path):
    job = job_of(put_images(tmp_path / "photos", "a.jpg", "b.jpg"), tmp_path / "out", ["ocr", "caption"])
    work = resolve(job)
    commit_all(work)
    finalized(work)
    counts = tokens_of_output(work.folder, work.tables)
    assert counts.keys() == {"ocr", "caption"}
    assert (counts["ocr"].origin, counts["ocr"].num_labels, counts["ocr"].max_tokens) == (LAST_RUN, 2, 10)


def test_output_without_a_dataset_tells_no_tokens(tmp_path):
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg"), tmp_path / "out"))
    assert tokens_of_output(work.folder, work.tables) == {}


def test_forecast_counts_what_is_left_and_what_failed(tmp_path):
    job = job_of(put_images(tmp_path / "photos", *NAMES[:4]), tmp_path / "out")
    measured = measured_rows(resolve(job))
    drawn = dataclasses.replace(drawn_of(job), num_to_label=1000)
    inspected = inspect(job, probe_output=False)
    on_gpus = dataclasses.replace(PLACEMENT, label_num_gpus=2.0, num_label_actors=3)
    facts = forecast_facts(inspected, measured, on_gpus, drawn, seed=0)
    assert facts["images_per_s"]["expected"] == pytest.approx(3 * 4 / 2.0)
    assert facts["gpu_hours"]["expected"] == pytest.approx(facts["run_s"]["expected"] * 6 / 3600)
    assert facts["quarantined_fraction"] == 0.25
    assert facts["output_bytes"] > 0
    assert forecast_facts(inspected, measured, PLACEMENT, drawn, seed=0)["gpu_hours"] is None


@pytest.mark.parametrize(("variant", "gb", "ranks"), [("tiny", 24, 1), ("27b", 80, 1), ("27b", 40, 2)])
def test_ranks_of_a_described_cluster_are_the_fewest_that_hold_the_checkpoint(variant, gb, ranks):
    config = variant_config(variant)
    cluster = described(gpus=8, gpu_memory_gb=gb, nodes=2, cpus=16)
    assert planned_ranks(EngineSpec(), config, cluster) == ranks
    memory = memory_of(job_of("in", "out"), config, ranks, cluster, max_tokens=2000)
    assert memory["weight_bytes"] + memory["activation_bytes"] + memory["cache_bytes"] == int(0.9 * gb * 1e9)
    assert memory["sequences_at_once"] == min(16, memory["cache_tokens"] // 2000)
    assert ("fits one GPU" in memory["note"]) == (ranks == 1)


def test_more_ranks_than_a_node_has_gpus_are_refused():
    cluster = described(gpus=4, gpu_memory_gb=80, nodes=2)
    with pytest.raises(ValueError, match="expert_ranks is 8.* has 4 GPUs"):
        planned_ranks(EngineSpec(expert_ranks=8), variant_config("small"), cluster)


def test_cpus_have_no_room_that_could_be_told():
    memory = memory_of(job_of("in", "out"), variant_config("tiny"), 1, CPUS, max_tokens=100)
    assert memory["weight_bytes"] == memory["dense_bytes"] + memory["expert_bytes"]
    assert "cache_tokens" not in memory


def test_every_gpu_of_the_described_cluster_is_used():
    cluster = described(gpus=8, gpu_memory_gb=40, nodes=3, cpus=32)
    parts = parts_of(Placement.for_cluster(cluster.size, ResourcesSpec(), expert_ranks=2), cluster)
    assert (parts["num_nodes"], parts["num_gpus"], parts["num_gpus_used"]) == (3, 24, 24)
    assert (parts["num_label_actors"], parts["num_cpus"]) == (12, 96)


def test_speed_of_gpus_is_not_told_by_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert can_measure(CPUS)
    assert not can_measure(described(gpus=1, gpu_memory_gb=80, nodes=1))


def test_plan_of_a_job_has_all_its_parts_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(encode(four_corners(40 + 100 * number, 40), "PNG"))
    (folder / "broken.png").write_bytes(b"no image")
    recipes = [{"name": "caption", "max_new_tokens": 4}, {"name": "ocr", "max_new_tokens": 4}]
    before = everything_below(tmp_path)
    found = plan(job_of(folder, tmp_path / "out", recipes), CPUS)
    assert everything_below(tmp_path) == before
    assert found["images"] == {"num_images": 6, "num_new_images": 6, "num_to_label": 6, "num_ignored_files": 0}
    assert found["sample"]["quarantined"] == found["measured"]["quarantined"] == {"unreadable": 1}
    assert sum(found["sample"]["grids"].values()) == 5
    assert found["measured"]["num_images"] == 6
    assert found["measured"]["num_threads"] == PLACEMENT.label_num_threads
    assert found["recipes"]["caption"]["num_labels"] == 5
    assert found["forecast"]["quarantined_fraction"] == pytest.approx(1 / 6)
    for name in ("images_per_s", "startup_s", "run_s"):
        values = found["forecast"][name]
        assert 0 < values["low"] <= values["expected"] <= values["high"], name
