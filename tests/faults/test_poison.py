import pytest
from PIL import Image

from pipeline.run import run_job
from tests.pipeline.asked import put_recipe
from tests.pipeline.outputs import files_below, job_of, names_in, table_at

pytestmark = pytest.mark.faults

POISON = """
import os
import signal

def columns(text, asked):
    if "poison" in asked["image_uri"] and os.path.exists({switch!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return {{}}
"""
"""Kills its worker on images of one name, as a fault of a kernel or of a driver would."""


def test_row_that_kills_its_worker_is_found_and_costs_no_other_row(tmp_path):
    """Ray alone would run its block again for ever."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [f"{index:02d}.png" for index in range(18)] + ["poison-a.png", "poison-b.png"]
    for index, name in enumerate(names):
        Image.new("RGB", (100 + index, 80), (index, 90, 90)).save(source / name)
    switch = tmp_path / "switch"
    switch.touch()
    (tmp_path / "poison.py").write_text(POISON.format(switch=str(switch)))
    recipe = put_recipe(tmp_path, "table: ocr\nparse: poison.py:columns\nsteps: [{prompts: [Read it.]}]")
    job = job_of(source, output, [{"name": recipe, "max_new_tokens": 4}])

    summary = run_job(job)
    assert summary["quarantined_by_kind"] == {"worker_died": 2}
    assert names_in(output, "ocr") == names[:18]
    quarantine = table_at(output, "quarantine").to_pylist()
    assert [row["image_uri"][-12:] for row in quarantine] == ["poison-a.png", "poison-b.png"]
    assert "2 workers died" in quarantine[0]["message"]

    switch.unlink()  # the fault is mended, and an ordinary rerun takes up what it cost
    summary = run_job(job)
    assert (summary["this_run"]["num_images"], summary["num_quarantined_images"]) == (2, 0)
    assert names_in(output, "ocr") == names
    assert [name for name in files_below(f"{output}/_run/in_hand") if "000002" in name] == []
