import contextlib
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.decode_child import DecodeSettings, prepare_image
from pipeline.prepare import TileImage
from pipeline.sandbox import DecodeSandbox, SandboxError
from schemas.errors import ErrorKind, RowError, RowFailure, Stage
from schemas.rows import TILES_COLUMN, rows_of, to_columns
from tests.pipeline.pictures import encode, four_corners, png
from tests.pipeline.rows import one_image_row

REPOSITORY = Path(__file__).parents[2]
UNRULY = "tests.pipeline.unruly_child"
CANDIDATES = ((28, 28), (56, 28), (28, 56))
PICTURE = encode(four_corners(56, 28), "PNG")


def settings(**fields: float) -> DecodeSettings:
    defaults = {"max_pixels": 1_000_000, "min_decoded_fraction": 0.9, "timeout_s": 60.0, "memory_mb": 512}
    return DecodeSettings(candidate_resolutions=CANDIDATES, **{**defaults, **fields})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with closing(DecodeSandbox(settings(), child_module=UNRULY)) as sandbox:
        yield sandbox


def failure(sandbox: DecodeSandbox, encoded: bytes) -> RowError:
    with pytest.raises(RowFailure) as caught:
        sandbox.prepare(encoded)
    return caught.value.error


def described(sandbox: DecodeSandbox) -> tuple[str, ...]:
    return sandbox.prepare(b"describe").flags


def pid_of(sandbox: DecodeSandbox) -> int:
    return int(described(sandbox)[0].removeprefix("pid="))


def is_there(pid: int) -> bool:
    """Zombies are there, too."""
    return Path(f"/proc/{pid}").exists()


def eventually(condition: Callable[[], bool]) -> bool:
    give_up_s = time.monotonic() + 60
    while not condition():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.05)
    return True


def test_image_comes_back_as_if_it_had_been_tiled_here(sandbox: DecodeSandbox):
    here, there = prepare_image(PICTURE, settings()), sandbox.prepare(PICTURE)

    assert (there.size, there.grid, there.flags) == ((56, 28), (2, 1), ())
    assert (there.tiles == here.tiles).all()


def test_failure_comes_back_as_if_it_had_been_raised_here(sandbox: DecodeSandbox):
    with pytest.raises(RowFailure) as here:
        prepare_image(PICTURE[:60], settings())

    assert failure(sandbox, PICTURE[:60]) == here.value.error


def test_file_of_many_megabytes_goes_through(sandbox: DecodeSandbox):
    assert sandbox.prepare(PICTURE + bytes(20_000_000)).size == (56, 28)


def test_one_child_serves_many_images(sandbox: DecodeSandbox):
    first = pid_of(sandbox)
    for encoded in (PICTURE, b"", b"no image", PICTURE[:60]):
        with contextlib.suppress(RowFailure):
            sandbox.prepare(encoded)

    assert pid_of(sandbox) == first


@pytest.mark.parametrize(
    ("order", "kind", "words"),
    [
        pytest.param(b"segfault", ErrorKind.DECODER_CRASHED, "ended by SIGSEGV", id="segmentation fault"),
        pytest.param(b"exit", ErrorKind.DECODER_CRASHED, "exited with status 3", id="exit"),
        pytest.param(b"raise", ErrorKind.DECODER_CRASHED, "exited with status 1", id="exception"),
        pytest.param(b"nonsense", ErrorKind.DECODER_CRASHED, "4294967295 bytes of JSON", id="nonsense"),
        pytest.param(b"lie", ErrorKind.DECODER_CRASHED, "a grid of 9x9 tiles", id="answer that cannot be"),
        pytest.param(b"endless", ErrorKind.DECODER_CRASHED, "gave an answer that is none", id="endless output"),
        pytest.param(b"memory", ErrorKind.DECODER_OUT_OF_MEMORY, "decode_memory_mb is 512", id="no memory"),
        pytest.param(b"killed", ErrorKind.DECODER_OUT_OF_MEMORY, "the machine's memory ran out", id="killed"),
    ],
)
def test_child_that_comes_to_an_end_costs_one_image(sandbox: DecodeSandbox, order: bytes, kind: ErrorKind, words: str):
    before = pid_of(sandbox)
    error = failure(sandbox, order)

    assert (error.kind, error.stage, error.kind.permanent) == (kind, Stage.DECODE, True)
    assert words in error.message
    assert sandbox.prepare(PICTURE).size == (56, 28)
    assert not is_there(before)


def test_child_that_hangs_is_killed():
    with closing(DecodeSandbox(settings(timeout_s=0.5), child_module=UNRULY)) as sandbox:
        before = pid_of(sandbox)
        error = failure(sandbox, b"hang")

        assert (error.kind, error.kind.permanent) == (ErrorKind.DECODER_TIMED_OUT, False)
        assert "longer than decode_timeout_s = 0.5" in error.message
        assert pid_of(sandbox) != before
        assert not is_there(before)


def test_image_that_costs_a_child_is_tried_once_more(sandbox: DecodeSandbox, tmp_path: Path):
    assert sandbox.prepare(b"crash once:" + bytes(tmp_path / "crashed")).size == (48, 32)
    assert (tmp_path / "crashed").exists()


def test_what_decoders_print_reaches_nobody(capfd: pytest.CaptureFixture[str]):
    with closing(DecodeSandbox(settings(), child_module=UNRULY)) as sandbox:
        assert sandbox.prepare(b"print").size == (48, 32)
        assert sandbox.prepare(PICTURE).size == (56, 28)
    assert capfd.readouterr() == ("", "")


def test_credentials_stay_with_the_parent(sandbox: DecodeSandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    sandbox.close()
    names = described(sandbox)[2:]

    assert "PATH" in names
    assert [name for name in names if "AWS" in name or "SECRET" in name] == []


def test_child_cannot_write_files_dump_core_or_raise_its_limits(sandbox: DecodeSandbox):
    limit = 512 * 1024**2

    assert described(sandbox)[1] == f"limits={ {'AS': (limit, limit), 'CORE': (0, 0), 'FSIZE': (0, 0)} }"


def test_picture_beyond_the_memory_of_a_child_is_out_of_memory():
    encoded = png(30_000, 30_000, depth=8, colour_type=2, pixels=b"")
    with closing(DecodeSandbox(settings(max_pixels=10**9))) as sandbox:
        error = failure(sandbox, encoded)

        assert error.kind is ErrorKind.DECODER_OUT_OF_MEMORY
        assert "decode_memory_mb is 512" in error.message
        assert sandbox.prepare(PICTURE).size == (56, 28)


def test_closed_sandbox_leaves_no_child_and_opens_again(sandbox: DecodeSandbox):
    first = pid_of(sandbox)
    sandbox.close()
    sandbox.close()

    assert not is_there(first)
    assert sandbox.prepare(PICTURE).size == (56, 28)


@pytest.mark.parametrize("order", ["", "hang"])
def test_child_ends_when_its_parent_is_killed(order: str):
    script = f"""
        from pipeline.sandbox import DecodeSandbox
        from tests.pipeline.test_sandbox import UNRULY, pid_of, settings
        sandbox = DecodeSandbox(settings(timeout_s=3), child_module=UNRULY)
        print(pid_of(sandbox), flush=True)
        if {order!r}:
            sandbox.prepare({order.encode()!r})
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_there(child)
        parent.kill()

    # Whoever adopts the child may be slow to notice that it has ended.
    assert eventually(lambda: not is_there(child) or "(zombie)" in Path(f"/proc/{child}/status").read_text())


def test_child_that_cannot_start_is_no_images_fault(capfd: pytest.CaptureFixture[str]):
    sandbox = DecodeSandbox(settings(), child_module="tests.pipeline.no_such_module")

    with pytest.raises(SandboxError, match="no_such_module did not start"):
        sandbox.prepare(PICTURE)
    assert "No module named" in capfd.readouterr().err


class TestStage:
    @staticmethod
    def block(*files: bytes) -> dict[str, list]:
        rows = [
            one_image_row(sample_id=str(n), image_uri=f"{n}.png", version="1", manifest_shard="0", recipes=("ocr",))
            for n in range(len(files))
        ]
        return to_columns(rows, encoded=[[file] for file in files])

    @staticmethod
    def stage(**options: object) -> TileImage:
        return TileImage(**{"candidate_resolutions": CANDIDATES, "max_pixels": 10**6, **options})

    @pytest.mark.parametrize("num_threads", [1, 3])
    def test_neighbours_of_an_image_that_ends_its_child_are_tiled(self, num_threads: int):
        files = [PICTURE, b"segfault", PICTURE, b"hang", PICTURE, b"memory", PICTURE]
        stage = self.stage(num_threads=num_threads, child_module=UNRULY, decode_timeout_s=1.0, decode_memory_mb=512)
        with closing(stage):
            block = stage(self.block(*files))

        kinds = [None if row.error is None else row.error.kind for row in rows_of(block)]
        assert kinds[1::2] == [
            ErrorKind.DECODER_CRASHED,
            ErrorKind.DECODER_TIMED_OUT,
            ErrorKind.DECODER_OUT_OF_MEMORY,
        ]
        assert kinds[::2] == [None] * 4
        assert [len(tiles) for tiles in block[TILES_COLUMN]] == [3, 0, 3, 0, 3, 0, 3]

    def test_can_be_pickled_until_it_is_called(self):
        with closing(pickle.loads(pickle.dumps(self.stage()))) as stage:
            (row,) = rows_of(stage(self.block(PICTURE)))

        assert row.error is None

    def test_ends_its_children_when_it_is_closed_or_deleted(self):
        stage = self.stage(num_threads=2, child_module=UNRULY)
        pids = []
        for end in (stage.close, lambda: None):
            flags = [row.flags for row in rows_of(stage(self.block(b"describe", b"describe")))]
            pids += [int(flag.removeprefix("pid=")) for flag, *_ in flags]
            end()
        del stage, end

        assert len(set(pids)) > 1
        assert [pid for pid in pids if is_there(pid)] == []

    def test_file_that_ends_too_early_is_used_and_flagged(self):
        noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        encoded = encode(Image.fromarray(noise), "BMP")[:-900]
        with closing(self.stage(min_decoded_fraction=0.97)) as stage:
            (row,) = rows_of(stage(self.block(encoded)))
        with closing(self.stage(min_decoded_fraction=0.98)) as stage:
            (refused,) = rows_of(stage(self.block(encoded)))

        assert (row.error, row.flags) == (None, ("truncated",))
        assert refused.error is not None
        assert refused.error.kind is ErrorKind.TRUNCATED


def test_child_knows_only_what_decoding_needs():
    """It starts in a fifth of a second and takes little memory because of that."""
    script = "import sys, pipeline.decode_child; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert {"torch", "ray", "pyarrow", "pydantic", "boto3"}.isdisjoint(done.stdout.split())
