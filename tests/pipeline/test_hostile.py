"""Several hundred files that want to do harm go through the tiling stage of one process."""

import json
import subprocess
import sys
from contextlib import closing

import pytest

from pipeline.decode_child import DecodeSettings
from pipeline.sandbox import DecodeSandbox
from schemas.errors import ErrorKind, RowFailure
from tests.command import REPOSITORY
from tests.hostile.bombs import scan_bomb
from tests.hostile.corpus import hostile_files
from tests.hostile.hostile_file import TILES

NUM_VARIANTS = 8


@pytest.fixture(scope="module")
def outcomes() -> list[dict]:
    command = [sys.executable, "-m", "tests.hostile", "--num-variants", str(NUM_VARIANTS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_file_ends_as_tiles_or_as_an_error_that_it_deserves(outcomes: list[dict]):
    files = list(hostile_files(num_variants=NUM_VARIANTS))
    assert len(files) > 600
    assert [file.name for file in files] == [outcome["name"] for outcome in outcomes[:-1]]

    wrong = [
        (file.group, file.name, outcome["end"], outcome["flags"], outcome["message"])
        for file, outcome in zip(files, outcomes, strict=False)
        if outcome["end"] not in file.allowed
        or (outcome["end"] == TILES and file.flag and file.flag not in outcome["flags"])
    ]
    assert wrong == []


def test_process_that_tiles_stays_small_and_leaves_no_child(outcomes: list[dict]):
    assert outcomes[-1]["memory_growth_mb"] < 32
    assert outcomes[-1]["children"] == []


def test_jpeg_of_endless_scans_runs_out_of_time():
    settings = DecodeSettings(
        candidate_resolutions=((28, 28),),
        max_pixels=4_000_000,
        min_decoded_fraction=0.9,
        timeout_s=0.5,
        memory_mb=512,
    )
    encoded = scan_bomb(100_000)
    with closing(DecodeSandbox(settings)) as sandbox:
        with pytest.raises(RowFailure) as caught:
            sandbox.prepare(encoded)

    assert len(encoded) < 3_000_000
    assert caught.value.error.kind is ErrorKind.DECODER_TIMED_OUT
