import pytest
from PIL import Image

from pipeline.recipes import BUILT_IN
from pipeline.run import run_job
from tests.faults.poison import PoisonedOcr
from tests.pipeline.outputs import files_below, job_of, names_in, table_at

pytestmark = pytest.mark.faults


def test_row_that_kills_its_worker_is_found_and_costs_no_other_row(tmp_path, monkeypatch):
    """Ray alone would run its block again for ever."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [f"{index:02d}.png" for index in range(18)] + ["poison-a.png", "poison-b.png"]
    for index, name in enumerate(names):
        Image.new("RGB", (100 + index, 80), (index, 90, 90)).save(source / name)
    monkeypatch.setitem(BUILT_IN, "ocr", PoisonedOcr)
    job = job_of(source, output, [{"name": "ocr", "max_new_tokens": 4}])

    summary = run_job(job)
    assert summary["quarantined_by_kind"] == {"worker_died": 2}
    assert names_in(output, "ocr") == names[:18]
    quarantine = table_at(output, "quarantine").to_pylist()
    assert [row["image_uri"][-12:] for row in quarantine] == ["poison-a.png", "poison-b.png"]
    assert "2 workers died" in quarantine[0]["message"]

    monkeypatch.undo()  # the fault is mended, and an ordinary rerun takes up what it cost
    summary = run_job(job)
    assert (summary["this_run"]["num_images"], summary["num_quarantined_images"]) == (2, 0)
    assert names_in(output, "ocr") == names
    assert [name for name in files_below(f"{output}/_run/in_hand") if "000002" in name] == []
