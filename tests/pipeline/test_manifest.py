import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import manifest as manifest_module
from pipeline.manifest import image_rows, read_shard, sample_id, write_manifest
from pipeline.source import SourceRow
from pipeline.storage import join_uri, open_store
from schemas.rows import RowImage
from schemas.tables import MANIFEST
from tests.pipeline.tables import put_table, source_at


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        open_store(str(tmp_path)).put(str(tmp_path / "photos" / f"{number}.jpg"), b"x")
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return source_at(tmp_path / "photos")


def records_of(manifest, folder_uri):
    batches = [batch for name in manifest.shards for batch in read_shard(join_uri(folder_uri, name))]
    return pa.Table.from_batches(batches).to_pylist()


def id_of_image(uri, version, member):
    return sample_id(SourceRow(images=(RowImage(uri=uri, version=version, member=member),)))


def test_sample_id_is_the_same_for_ever():
    assert id_of_image("s3://bucket/a.jpg", "etag", "") == "aa9d202e0c676606ca0062c920f086cd"


def test_sample_id_tells_apart_where_one_part_ends_and_the_next_begins():
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "", "bc"), ('a","b', "", "c"), ("", "b", "c")]
    assert len({id_of_image(*part) for part in parts}) == len(parts)


def test_manifest_has_every_image_once_in_order(photos, tmp_path):
    folder_uri = str(tmp_path / "manifest")
    manifest = write_manifest(photos, folder_uri, limit=None, rows_per_shard=2)
    assert manifest.shards == ("shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet")
    assert (manifest.num_images, manifest.num_ignored, manifest.carried_schema) == (5, 1, None)
    records = records_of(manifest, folder_uri)
    assert [record["image_uri"] for record in records] == [f"{tmp_path}/photos/{number}.jpg" for number in range(5)]
    assert pq.read_schema(f"{folder_uri}/shard-00002.parquet") == MANIFEST
    assert len({record["sample_id"] for record in records}) == 5


def test_manifest_on_s3_is_the_same(photos, bucket, tmp_path):
    local = write_manifest(photos, str(tmp_path / "manifest"), limit=None)
    remote = write_manifest(photos, f"{bucket}/manifest", limit=None)
    assert local == remote
    assert records_of(local, str(tmp_path / "manifest")) == records_of(remote, f"{bucket}/manifest")


@pytest.mark.parametrize(("limit", "num_images", "num_shards"), [(3, 3, 2), (4, 4, 2), (99, 5, 3)])
def test_limit_takes_the_first_images(photos, tmp_path, limit, num_images, num_shards):
    manifest = write_manifest(photos, str(tmp_path / "manifest"), limit=limit, rows_per_shard=2)
    assert (manifest.num_images, len(manifest.shards)) == (num_images, num_shards)


def test_shard_ends_early_when_its_rows_carry_much(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "_MAX_SHARD_BYTES", 250_000)
    columns = {"image": [b"x"] * 5, "note": ["n" * 100_000] * 5}
    source = source_at(put_table(str(tmp_path), "t.parquet", columns))
    manifest = write_manifest(source, str(tmp_path / "manifest"), limit=None)
    assert (manifest.num_images, len(manifest.shards)) == (5, 2)


def test_one_image_named_twice_in_a_table_is_two_inputs(tmp_path):
    source = source_at(put_table(str(tmp_path), "t.parquet", {"url": ["a.jpg", "a.jpg"]}))
    manifest = write_manifest(source, str(tmp_path / "manifest"), limit=None)
    records = records_of(manifest, str(tmp_path / "manifest"))
    assert len({record["image_uri"] for record in records}) == 1
    assert len({record["sample_id"] for record in records}) == 2


def test_rows_enter_the_pipeline_with_all_that_the_source_said(tmp_path):
    columns = {
        "image": [b"x"],
        "asks": [["What?", "Why?"]],
        "replies": [["This.", None]],
        "find": ["the dog"],
        "day": [datetime.date(2024, 5, 1)],
    }
    table = put_table(str(tmp_path), "t.parquet", columns)
    names = {"questions": "asks", "original_answers": "replies", "queries": "find"}
    manifest = write_manifest(source_at(table, columns=names, carry=("day",)), str(tmp_path / "m"), limit=None)
    (batch,) = read_shard(str(tmp_path / "m" / manifest.shards[0]))
    (row,) = image_rows(batch, manifest_shard=manifest.shards[0], recipes=[("qa", "ocr")])
    assert row.sample_id == id_of_image(row.image_uri, row.version, row.member)
    assert (row.place, row.image_uri, row.member) == (f"{table}#0", f"{table}#0", "0:0")
    assert (row.manifest_shard, row.recipes) == ("shard-00000.parquet", ("qa", "ocr"))
    assert (row.questions, row.original_answers, row.queries) == (("What?", "Why?"), ("This.", None), ("the dog",))
    assert pa.ipc.open_stream(row.carried).read_all() == pa.table({"day": columns["day"]})
    assert manifest.carried_schema == pa.schema([("day", pa.date32())])


def test_shard_is_read_in_batches(photos, tmp_path):
    write_manifest(photos, str(tmp_path / "m"), limit=None)
    batches = list(read_shard(str(tmp_path / "m" / "shard-00000.parquet"), batch_rows=2))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
