import hashlib
import os
import pickle
import re
import threading

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parquet_members
from pipeline.fetch import FetchImage
from pipeline.manifest import image_rows, read_shard, write_manifest
from pipeline.patience import Patience
from pipeline.storage import join_uri, open_store
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, RowError
from schemas.rows import rows_of, to_columns
from tests.faulty_s3 import faulty_s3
from tests.pipeline.rows import one_image_row
from tests.pipeline.tables import IMAGE, put_table, source_at
from tests.s3 import unused_endpoint, use_proxy


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    return request.getfixturevalue("bucket") + "/images" if request.param == "s3" else str(tmp_path / "images")


def fetcher(**options):
    return FetchImage(**{"max_bytes": 1000, "image_column": "image", "num_threads": 4, **options})


def row_of(image_uri, *, version="", member="", place=""):
    return one_image_row(
        sample_id=f"id of {image_uri}",
        image_uri=image_uri,
        version=version,
        member=member,
        place=place,
        manifest_shard="shard-00000.parquet",
        recipes=("ocr",),
        carried=image_uri.encode(),
    )


def fetch(*rows, **options):
    """The fetched rows, each with the bytes of its one image; without any where there are none."""
    block = fetcher(**options)(to_columns(rows))
    return [(row, b"".join(encoded)) for row, encoded in zip(rows_of(block), block["encoded"], strict=True)]


def kinds(fetched):
    return [row.error and row.error.kind for row, _ in fetched]


def rows_of_table(uri, tmp_path, **spec):
    source = source_at(uri, **spec)
    manifest = write_manifest(source, str(tmp_path / "manifest"), limit=None)
    return [
        row
        for name in manifest.shards
        for batch in read_shard(str(tmp_path / "manifest" / name))
        for row in image_rows(batch, manifest_shard=name, recipes=[("ocr",)] * batch.num_rows)
    ]


def test_block_keeps_its_rows_in_order_with_their_bytes(folder_uri):
    uris = [join_uri(folder_uri, f"{number:02d} +%20ü.jpg") for number in range(20)]
    for number, uri in enumerate(uris):
        open_store(uri).put(uri, bytes([number]) * 100)
    rows = [row_of(uri, version=open_store(uri).head(uri).version) for uri in uris]
    fetched = fetch(*rows)
    assert [encoded for _, encoded in fetched] == [bytes([number]) * 100 for number in range(20)]
    assert [row.image_uri for row, _ in fetched] == uris
    assert [row.carried for row, _ in fetched] == [uri.encode() for uri in uris]
    assert [row.image_sha256 for row, _ in fetched] == [hashlib.sha256(data).hexdigest() for _, data in fetched]


def test_each_failure_costs_one_row_and_is_named(folder_uri):
    contents = {"good.jpg": b"good", "empty.jpg": b"", "large.jpg": b"x" * 1001, "old.jpg": b"new bytes"}
    for name, data in contents.items():
        open_store(folder_uri).put(join_uri(folder_uri, name), data)
    expected = {
        row_of(join_uri(folder_uri, "good.jpg")): None,
        row_of(join_uri(folder_uri, "missing.jpg")): ErrorKind.MISSING,
        row_of(join_uri(folder_uri, "empty.jpg")): ErrorKind.EMPTY,
        row_of(join_uri(folder_uri, "large.jpg")): ErrorKind.TOO_MANY_BYTES,
        row_of(join_uri(folder_uri, "old.jpg"), version="another"): ErrorKind.CHANGED,
        row_of("https://example.org/a.jpg"): ErrorKind.UNSUPPORTED_URI,
        row_of("s3://"): ErrorKind.UNSUPPORTED_URI,
        row_of(join_uri(folder_uri, "good.jpg"), place="s3://bucket/t.parquet#7"): None,
    }
    fetched = fetch(*expected, uri_policy=UriPolicy(roots=(folder_uri,)))
    assert kinds(fetched) == list(expected.values())
    assert all((encoded == b"") == (row.error is not None) for row, encoded in fetched)
    assert all(row.error is None or row.image_uri in row.error.message for row, _ in fetched)


def test_forbidden_object_is_named(bucket, monkeypatch):
    open_store(bucket).put(f"{bucket}/private.jpg", b"x")
    name = bucket.removeprefix("s3://")
    boto3.client("s3").put_object_acl(Bucket=name, Key="private.jpg", ACL="private")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")
    assert kinds(fetch(row_of(f"{bucket}/private.jpg"))) == [ErrorKind.FORBIDDEN]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_named(tmp_path):
    (tmp_path / "private.jpg").write_bytes(b"x")
    (tmp_path / "private.jpg").chmod(0)
    assert kinds(fetch(row_of(str(tmp_path / "private.jpg")))) == [ErrorKind.FORBIDDEN]


def test_rows_of_a_store_that_does_not_answer_are_given_up_after_one_patience_for_all(bucket, monkeypatch):
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        use_proxy(monkeypatch, proxy.url, patience_s=0.3)
        proxy.go_down()
        fetched = fetch(*(row_of(f"{bucket}/{number}.jpg") for number in range(200)))
        assert kinds(fetched) == [ErrorKind.STORE_UNAVAILABLE] * 200
        waited_for = [row for row, _ in fetched if "asked 2 times" not in row.error.message]
        assert 0 < len(waited_for) <= 4  # one in each thread; the rows after them were asked for twice


def test_busy_store_is_asked_again(modest_store):
    modest_store.objects["/bucket/a.jpg"] = b"x"
    modest_store.num_busy_answers = 4
    assert [encoded for _, encoded in fetch(row_of("s3://bucket/a.jpg"), patience=Patience(store_s=30))] == [b"x"]
    modest_store.num_busy_answers = 4
    assert kinds(fetch(row_of("s3://bucket/a.jpg"), patience=Patience(store_s=0))) == [ErrorKind.STORE_UNAVAILABLE]


def test_dead_object_costs_its_row_long_before_the_patience_with_its_store_is_spent(bucket, monkeypatch):
    uris = [f"{bucket}/{number}.jpg" for number in range(8)]
    for uri in uris:
        open_store(uri).put(uri, uri.encode())
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        use_proxy(monkeypatch, proxy.url, patience_s=30)
        for uri in (uris[2], uris[7]):
            proxy.break_path("/" + uri.removeprefix("s3://"))
        fetched = fetch(*map(row_of, uris), patience=Patience(store_s=90, object_s=0.1))
    dead = ErrorKind.STORE_UNAVAILABLE
    assert kinds(fetched) == [None, None, dead, None, None, None, None, dead]
    for number in (2, 7):
        waited_s = re.search(r"asked \d+ times in (\d+) s", fetched[number][0].error.message)
        assert int(waited_s.group(1)) < 90


def test_dead_table_costs_its_rows_and_is_not_waited_for_at_each_of_them(bucket, tmp_path, monkeypatch):
    uri = put_table(bucket, "t.parquet", {"image": [b"%d" % number for number in range(40)]})
    rows = rows_of_table(uri, tmp_path)
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        use_proxy(monkeypatch, proxy.url, patience_s=30)
        proxy.break_path("/" + uri.removeprefix("s3://"))
        fetched = fetch(*rows, patience=Patience(store_s=60, object_s=0.05))
    assert kinds(fetched) == [ErrorKind.STORE_UNAVAILABLE] * 40
    assert sum("asked 2 times" in row.error.message for row, _ in fetched) == 39


def test_images_are_fetched_under_faults_and_while_the_store_is_away(bucket, monkeypatch):
    uris = [f"{bucket}/{number}.jpg" for number in range(60)]
    for uri in uris:
        open_store(uri).put(uri, uri.encode() * 10)
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"], seed=5, rate=0.2) as proxy:
        use_proxy(monkeypatch, proxy.url, patience_s=60)
        proxy.go_down()
        back = threading.Thread(target=proxy.come_back_after, args=(3,))
        back.start()
        fetched = fetch(*map(row_of, uris))
        back.join()
        assert [encoded for _, encoded in fetched] == [uri.encode() * 10 for uri in uris]
        assert min(proxy.num_refused, proxy.injected.total()) > 0


def test_row_that_failed_before_is_left_alone(tmp_path):
    error = RowError(kind=ErrorKind.DECODER_FAILED, message="died here twice")
    ((row, encoded),) = fetch(row_of(str(tmp_path / "missing.jpg")).failed(error))
    assert (row.error, encoded) == (error, b"")


@pytest.mark.parametrize(
    "type_", [pa.binary(), pa.large_binary(), IMAGE], ids=["binary", "large_binary", "struct of bytes and path"]
)
def test_images_in_a_table_are_read_by_row(folder_uri, tmp_path, type_):
    images = [b"image %d" % number for number in range(25)]
    images[3], images[4], images[5] = None, b"", b"x" * 1001
    in_structs = [None if image is None else {"bytes": image, "path": "p"} for image in images]
    values = in_structs if type_ == IMAGE else images
    uri = put_table(folder_uri, "t.parquet", {"image": pa.array(values, type_)}, row_group_size=10)
    fetched = fetch(*rows_of_table(uri, tmp_path))
    expected_kinds = {3: ErrorKind.EMPTY, 4: ErrorKind.EMPTY, 5: ErrorKind.TOO_MANY_BYTES}
    assert kinds(fetched) == [expected_kinds.get(number) for number in range(25)]
    assert [encoded for _, encoded in fetched] == [
        b"" if number in expected_kinds else image for number, image in enumerate(images)
    ]


def test_rows_of_a_table_may_be_asked_for_in_any_order(tmp_path):
    images = [b"image %d" % number for number in range(30)]
    uri = put_table(str(tmp_path), "t.parquet", {"image": images}, row_group_size=10)
    rows = rows_of_table(uri, tmp_path)
    order = [29, 0, 5, 4, 12, 11, 28, 4, 4]
    fetched = fetch(*(rows[number] for number in order))
    assert [encoded for _, encoded in fetched] == [images[number] for number in order]


def test_consecutive_blocks_read_a_row_group_once(tmp_path, monkeypatch):
    uri = put_table(str(tmp_path), "t.parquet", {"image": [b"%d" % number for number in range(20)]}, row_group_size=10)
    rows = rows_of_table(uri, tmp_path)
    read = []
    original = parquet_members.read_batches
    monkeypatch.setattr(
        parquet_members,
        "read_batches",
        lambda table, row_group, *args: read.append(row_group) or original(table, row_group, *args),
    )
    stage = fetcher()
    for start in range(0, 20, 4):
        block = stage(to_columns(rows[start : start + 4]))
        assert block["encoded"] == [[b"%d" % number] for number in range(start, start + 4)]
    assert read == [0, 1]


def test_table_and_files_mix_in_one_block(tmp_path):
    (tmp_path / "file.jpg").write_bytes(b"from a file")
    images = [{"bytes": b"from the table", "path": "x.jpg"}, {"bytes": None, "path": "file.jpg"}, None]
    uri = put_table(str(tmp_path), "t.parquet", {"image": pa.array(images, IMAGE)})
    fetched = fetch(*rows_of_table(uri, tmp_path), uri_policy=UriPolicy(roots=(str(tmp_path),)))
    assert [encoded for _, encoded in fetched] == [b"from the table", b"from a file", b""]
    assert kinds(fetched) == [None, None, ErrorKind.EMPTY]


def test_null_uri_of_a_table_is_empty(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    uri = put_table(str(tmp_path), "t.parquet", {"url": ["a.jpg", None, ""]})
    policy = UriPolicy(roots=(str(tmp_path),))
    fetched = fetch(*rows_of_table(uri, tmp_path), image_column="url", uri_policy=policy)
    assert kinds(fetched) == [None, ErrorKind.EMPTY, ErrorKind.EMPTY]


def test_table_that_changed_or_vanished_fails_its_rows(tmp_path):
    uri = put_table(str(tmp_path), "t.parquet", {"image": [b"a", b"b"]})
    rows = rows_of_table(uri, tmp_path)
    put_table(str(tmp_path), "t.parquet", {"image": [b"other", b"b", b"c"]})
    assert kinds(fetch(*rows)) == [ErrorKind.CHANGED] * 2
    os.remove(uri)
    assert kinds(fetch(*rows)) == [ErrorKind.MISSING] * 2


def test_damaged_row_group_costs_its_own_rows(tmp_path):
    images = [os.urandom(500) for _ in range(4)]
    uri = put_table(str(tmp_path), "t.parquet", {"image": images}, row_group_size=2, compression="zstd")
    chunk = pq.read_metadata(uri).row_group(0).column(0)
    with open(uri, "r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)
    fetched = fetch(*rows_of_table(uri, tmp_path))
    assert kinds(fetched) == [ErrorKind.UNREADABLE, ErrorKind.UNREADABLE, None, None]
    assert [encoded for _, encoded in fetched] == [b"", b"", *images[2:]]


def test_reading_of_a_table_goes_on_after_the_store_was_away(bucket, tmp_path, monkeypatch):
    uri = put_table(bucket, "t.parquet", {"image": [b"%d" % number for number in range(8)]})
    rows = rows_of_table(uri, tmp_path)
    stage = fetcher(patience=Patience(store_s=0))
    endpoint_url = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", unused_endpoint())
    assert [row.error.kind for row in rows_of(stage(to_columns(rows[:1])))] == [ErrorKind.STORE_UNAVAILABLE]
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint_url)
    assert stage(to_columns(rows))["encoded"] == [[b"%d" % number] for number in range(8)]


def test_stage_can_be_pickled_before_use(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    stage = pickle.loads(pickle.dumps(fetcher()))
    assert stage(to_columns([row_of(str(tmp_path / "a.jpg"))]))["encoded"] == [[b"a"]]
