"""What Ray reports as pages of traces comes out as one line; a cluster that cannot be joined is named."""

import socket

import pytest
from ray.exceptions import RayTaskError

from pipeline import cluster
from tests.command import assert_one_clear_line, labelmill, write_job

REMOTE_TRACEBACK = """\x1b[36mray::MapBatches(LabelSink)()\x1b[39m (pid=1, ip=10.0.0.1)
  File "pipeline/local.py", line 10, in put
    os.write(descriptor, data)
{first}

The above exception was the direct cause of the following exception:

  File "pipeline/sink.py", line 20, in _put_table
{second}

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: UDF failed to process a data block.
"""


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            "OSError: [Errno 28] No space left on device",
            "pipeline.storage.StorageError: /out/x.parquet: the disk is full",
            "/out/x.parquet: the disk is full",
        ),
        ("KeyError: 'tiles'", "RuntimeError: while tiling", "KeyError: 'tiles'"),
        ("torch.OutOfMemoryError: CUDA out of memory", "RuntimeError: x", "OutOfMemoryError: CUDA out of memory"),
    ],
    ids=["our own sentence", "where it began", "dotted name"],
)
def test_error_of_a_worker_is_told_in_the_words_of_the_stage(first: str, second: str, told: str):
    error = RayTaskError("f", REMOTE_TRACEBACK.format(first=first, second=second), RuntimeError("lost in pickling"))
    assert cluster._root_cause(error) == told


def test_cluster_that_cannot_be_joined_is_named(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"broken is enough: nothing is decoded before a cluster is there")
    job = write_job(tmp_path, source=str(tmp_path / "in"), output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill("run", job), address, "RAY_AUTH_MODE")
