"""A checkpoint in a store is told from others, and checked, without its weights being fetched."""

import json
import random
import re
import struct
from pathlib import Path

import pytest

from model.checkpoint import check
from model.checkpoint_files import NANO_FOLDER, digest, local_folder
from model.checkpoint_outline import outlined
from tests import golden, s3
from tests.faulty_s3 import FaultyS3, faulty_s3
from tests.model.stored_checkpoints import put

NAME = "base-like"
BLOCK_BYTES, NUM_BLOCKS = 64 * 1024, 64
LARGE_BYTES = 12_000_000
"""Between two of the blocks that are sampled of such a file lie 120 KB."""
BETWEEN_BLOCKS, IN_A_BLOCK = 100_000, (LARGE_BYTES - BLOCK_BYTES) // (NUM_BLOCKS - 1) + 10


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def large_checkpoint() -> dict[str, bytes]:
    """Configuration, and a weight file of which most lies between the samples."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "x": " " * 70_000}).encode()
    body = struct.pack("<Q", len(header)) + header
    weights = body + random.Random(1).randbytes(LARGE_BYTES - len(body))
    return content_of(NANO_FOLDER) | {"model.safetensors": weights}


def changed_at(content: dict[str, bytes], place: int) -> dict[str, bytes]:
    weights = bytearray(content["model.safetensors"])
    weights[place] ^= 1
    return content | {"model.safetensors": bytes(weights)}


def digest_and_objects(uri: str) -> tuple[str, str | None]:
    with outlined(uri) as outline:
        return digest(outline.folder), outline.objects


def num_bytes_read(proxy: FaultyS3, name: str) -> int:
    ranges = [asked for method, path, asked in proxy.requests if method == "GET" and path.endswith(f"/{name}")]
    ends = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked) for asked in ranges]
    assert None not in ends, "asked for the whole object"
    return sum(int(end[2]) - int(end[1]) + 1 for end in ends if end is not None)


@pytest.mark.parametrize("folder", [NANO_FOLDER, golden.checkpoint_folder(NAME)], ids=["nano", NAME])
def test_objects_have_the_digest_of_the_files_and_can_be_checked(bucket: str, folder: Path):
    uri = put(f"{bucket}/c", content_of(folder))
    with outlined(uri) as outline:
        assert digest(outline.folder) == digest(folder)
        assert check(outline.folder) == check(folder)
        left = outline.folder
    assert not left.exists()


def test_of_a_weight_file_the_header_and_the_sampled_blocks_are_read(
    moto_endpoint: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = large_checkpoint()
    uri = put(f"{bucket}/c", content)
    for name, body in content.items():
        (tmp_path / name).write_bytes(body)
    with faulty_s3(moto_endpoint, seed=1, rate=0) as proxy:
        s3.use_proxy(monkeypatch, proxy.url, patience_s=5)
        assert digest_and_objects(uri)[0] == digest(tmp_path)
    header_bytes = 8 + int.from_bytes(content["model.safetensors"][:8], "little")
    assert num_bytes_read(proxy, "model.safetensors") > NUM_BLOCKS * BLOCK_BYTES
    assert num_bytes_read(proxy, "model.safetensors") <= NUM_BLOCKS * BLOCK_BYTES + header_bytes + 8
    assert num_bytes_read(proxy, "config.json") == len(content["config.json"])


def test_holes_of_an_outline_take_no_disk(bucket: str):
    uri = put(f"{bucket}/c", large_checkpoint())
    with outlined(uri) as outline:
        stat = (outline.folder / "model.safetensors").stat()
    assert stat.st_size == LARGE_BYTES
    assert stat.st_blocks * 512 < 2 * NUM_BLOCKS * BLOCK_BYTES < LARGE_BYTES


def test_trained_weights_are_another_digest(bucket: str):
    content = large_checkpoint()
    before, _ = digest_and_objects(put(f"{bucket}/c", content))
    after, _ = digest_and_objects(put(f"{bucket}/c", changed_at(content, IN_A_BLOCK)))
    assert before != after


def test_weight_between_the_samples_shows_in_the_state_of_the_objects(bucket: str):
    content = large_checkpoint()
    before = digest_and_objects(put(f"{bucket}/c", content))
    assert digest_and_objects(f"{bucket}/c") == digest_and_objects(f"{bucket}/c/") == before
    after = digest_and_objects(put(f"{bucket}/c", changed_at(content, BETWEEN_BLOCKS)))
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("claimed", [2**63, LARGE_BYTES, 99_999_999_999])
def test_header_that_claims_more_than_there_is_is_not_fetched_but_refused(bucket: str, claimed: int):
    content = large_checkpoint()
    weights = struct.pack("<Q", claimed) + content["model.safetensors"][8:]
    uri = put(f"{bucket}/c", content | {"model.safetensors": weights})
    with pytest.raises(ValueError, match=r"cannot be read") as caught, outlined(uri) as outline:
        check(outline.folder)
    assert f"{uri}/model.safetensors" in str(caught.value)


def test_empty_weight_file_is_refused_by_its_place_in_the_store(bucket: str):
    uri = put(f"{bucket}/c", content_of(NANO_FOLDER) | {"model.safetensors": b""})
    with pytest.raises(ValueError, match=rf"{uri}/model.safetensors cannot be read"), outlined(uri) as outline:
        check(outline.folder)


def test_what_lies_here_is_used_where_it_lies():
    with outlined("nano") as outline:
        assert outline.folder == local_folder("nano")
        assert outline.objects is None


def test_prefix_without_a_checkpoint_is_refused(bucket: str):
    with pytest.raises(ValueError, match=r"holds no config.json"), outlined(f"{bucket}/nothing"):
        pass
