import errno
import io
import itertools
import os
import pickle

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.local import LocalStore
from pipeline.patience import Patience
from pipeline.s3 import S3Store
from pipeline.s3_errors import refused
from pipeline.storage import StorageError, canonical_uri, join_uri, open_store, resolve_uri
from schemas.errors import ErrorKind
from tests import swift
from tests.faulty_s3 import faulty_s3
from tests.s3 import KEYS_PER_PAGE, unused_endpoint, use_proxy, use_store

ODD_NAMES = ("a b.jpg", "a+b.jpg", "a%20b.jpg", "ünï/日本.jpg", "quote'\"&<.jpg", "hash#1.jpg", "q?x=1.jpg", "[1].jpg")


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    """A folder that both kinds of store must treat alike."""
    if request.param == "s3":
        return request.getfixturevalue("bucket") + "/folder"
    (tmp_path / "folder").mkdir()
    return str(tmp_path / "folder")


def names_in(folder_uri, **options):
    store = open_store(folder_uri)
    return [info.uri.removeprefix(folder_uri + "/") for info in store.list(folder_uri, **options)]


def kind_of(call, *args, **kwargs):
    with pytest.raises(StorageError) as raised:
        call(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return raised.value.kind


def test_listing_is_recursive_and_in_the_order_of_whole_keys(folder_uri):
    store = open_store(folder_uri)
    for name in ("b.jpg", "a/z.jpg", "a-b/x.jpg", "a.jpg", "a/deep/er/y.jpg", "B.jpg"):
        store.put(join_uri(folder_uri, name), b"x")
    assert names_in(folder_uri) == ["B.jpg", "a-b/x.jpg", "a.jpg", "a/deep/er/y.jpg", "a/z.jpg", "b.jpg"]


def test_listing_a_folder_leaves_out_siblings_that_start_with_its_name(folder_uri):
    store = open_store(folder_uri)
    store.put(join_uri(folder_uri, "photos/in.jpg"), b"x")
    store.put(join_uri(folder_uri, "photos-old/out.jpg"), b"x")
    assert names_in(join_uri(folder_uri, "photos")) == ["in.jpg"]


def test_listing_can_be_narrowed_to_names_that_start_alike(folder_uri):
    for name in ("2024-01/a.jpg", "2024-02/a.jpg", "2025-01/a.jpg"):
        open_store(folder_uri).put(join_uri(folder_uri, name), b"x")
    assert names_in(folder_uri, starting_with="2024-") == ["2024-01/a.jpg", "2024-02/a.jpg"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_listed_and_read_as_they_are(folder_uri, name):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, name)
    store.put(uri, name.encode())
    assert [info.uri for info in store.list(folder_uri)] == [uri]
    assert store.get(uri) == name.encode()


def test_s3_listing_goes_beyond_the_first_page(bucket):
    store = open_store(bucket)
    names = [f"{number:04d}.jpg" for number in range(2 * KEYS_PER_PAGE + 5)]
    for name in names:
        store.put(f"{bucket}/{name}", b"")
    assert names_in(bucket) == names


def test_s3_folder_markers_are_not_objects(bucket):
    name = bucket.removeprefix("s3://")
    boto3.client("s3").put_object(Bucket=name, Key="photos/", Body=b"")
    open_store(bucket).put(f"{bucket}/photos/a.jpg", b"x")
    assert names_in(bucket) == ["photos/a.jpg"]


def test_version_changes_with_the_bytes(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "a.jpg")
    store.put(uri, b"old")
    old = store.head(uri)
    store.put(uri, b"newer")
    assert (old.num_bytes, store.head(uri).num_bytes) == (3, 5)
    assert kind_of(store.get, uri, version=old.version) == ErrorKind.CHANGED
    assert next(store.list(folder_uri)) == store.head(uri)


def test_object_over_the_limit_is_not_read(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "big.jpg")
    store.put(uri, b"12345")
    assert store.get(uri, max_bytes=5) == b"12345"
    assert kind_of(store.get, uri, max_bytes=4) == ErrorKind.TOO_MANY_BYTES


def test_put_if_absent_is_won_once(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "sub/lease.json")
    assert store.put_if_absent(uri, b"first") is True
    assert store.put_if_absent(uri, b"second") is False
    assert store.get(uri) == b"first"
    assert names_in(folder_uri) == ["sub/lease.json"]


def test_put_if_absent_looks_first_on_a_store_without_conditional_puts(modest_store):
    store = S3Store()
    assert store.put_if_absent("s3://bucket/lease.json", b"first") is True
    assert store.put_if_absent("s3://bucket/lease.json", b"second") is False
    assert modest_store.objects == {"/bucket/lease.json": b"first"}


def test_store_is_asked_whether_it_has_conditional_puts(folder_uri):
    store = open_store(folder_uri)
    assert store.has_conditional_puts(folder_uri) is True
    assert names_in(folder_uri) == []


def test_store_that_refuses_conditional_puts_has_none(modest_store):
    assert S3Store().has_conditional_puts("s3://bucket/folder") is False
    assert modest_store.objects == {}


def test_store_that_takes_conditional_puts_for_plain_ones_has_none_and_is_looked_at_first(modest_store):
    modest_store.ignores_conditions = True
    assert S3Store().has_conditional_puts("s3://bucket/folder") is False
    assert S3Store().put_if_absent("s3://bucket/lease.json", b"first") is True
    assert S3Store().put_if_absent("s3://bucket/lease.json", b"second") is False
    assert modest_store.objects == {"/bucket/lease.json": b"first"}


@pytest.mark.swift
@pytest.mark.skipif(swift.reason_to_skip() is not None, reason=str(swift.reason_to_skip()))
def test_swift_has_no_conditional_puts_and_signed_requests_survive_the_proxy(tmp_path, monkeypatch):
    with swift.swift_store(tmp_path / "swift", monkeypatch) as bucket:
        assert S3Store().has_conditional_puts(bucket) is False
        assert S3Store().put_if_absent(f"{bucket}/lease.json", b"first") is True
        assert S3Store().put_if_absent(f"{bucket}/lease.json", b"second") is False
        assert names_in(bucket) == ["lease.json"]
        with faulty_s3(os.environ["AWS_ENDPOINT_URL"], seed=3, rate=0.3) as proxy:
            use_proxy(monkeypatch, proxy.url, patience_s=30)
            for number in range(15):
                S3Store().put(f"{bucket}/images/{number:02d} +ü.jpg", bytes([number]) * 2_000)
            assert names_in(f"{bucket}/images") == [f"{number:02d} +ü.jpg" for number in range(15)]
            with S3Store().open(f"{bucket}/images/07 +ü.jpg") as file:
                assert file.read() == bytes([7]) * 2_000
            assert proxy.injected.total() > 0
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-key")
            with pytest.raises(StorageError, match=r"the secret key does not belong to this access key") as raised:
                S3Store().get(f"{bucket}/lease.json")
            assert "another-secret-key" not in repr(raised.value)


def test_deleting_twice_is_fine(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "a.jpg")
    store.put(uri, b"x")
    assert store.exists(uri)
    store.delete(uri)
    store.delete(uri)
    assert not store.exists(uri)
    assert kind_of(store.get, uri) == kind_of(store.head, uri) == kind_of(store.open, uri) == ErrorKind.MISSING


def test_open_reads_any_range(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "digits")
    data = bytes(itertools.islice(itertools.cycle(range(251)), 3_000_000))
    store.put(uri, data)
    with store.open(uri) as file:
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.seek(1_500_000) == 1_500_000
        assert file.read(10) == data[1_500_000:1_500_010]
        file.seek(0)
        assert file.read() == data


def test_parquet_is_read_column_by_column_through_open(folder_uri):
    store = open_store(folder_uri)
    uri = join_uri(folder_uri, "t.parquet")
    table = pa.table({"number": [1, 2, 3], "blob": [os.urandom(2_000_000)] * 3})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.put(uri, sink.getvalue())
    with store.open(uri) as file:
        assert pq.ParquetFile(file).read(["number"]).column("number").to_pylist() == [1, 2, 3]


def test_open_s3_object_that_is_replaced_fails_rather_than_mix_two_versions(bucket):
    store = open_store(bucket)
    uri = f"{bucket}/a"
    store.put(uri, b"old" * 1_000_000)
    with store.open(uri) as file:
        assert file.read(3) == b"old"
        store.put(uri, b"new" * 1_000_000)
        file.seek(2_000_000)
        assert kind_of(file.read, 3) == ErrorKind.CHANGED


def test_check_writable_leaves_nothing_behind(folder_uri):
    open_store(folder_uri).check_writable(folder_uri)
    assert names_in(folder_uri) == []


def test_stores_can_be_pickled_after_use(folder_uri):
    store = open_store(folder_uri)
    store.put(join_uri(folder_uri, "a"), b"x")
    assert pickle.loads(pickle.dumps(store)).get(join_uri(folder_uri, "a")) == b"x"


def test_storage_error_survives_pickling():
    error = pickle.loads(pickle.dumps(StorageError(ErrorKind.MISSING, "no\nsuch thing")))
    assert (error.kind, str(error)) == (ErrorKind.MISSING, "no such thing")


def test_local_links_are_followed_and_dangling_ones_are_listed_without_a_version(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"abc")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    found = {info.uri.removeprefix(f"{tmp_path}/"): info for info in LocalStore().list(str(tmp_path))}
    assert list(found) == ["dangling.jpg", "link.jpg", "linked/a.jpg", "real/a.jpg"]
    assert (found["dangling.jpg"].version, found["link.jpg"].num_bytes) == ("", 3)


def test_local_put_gives_files_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"x")
    LocalStore().put(str(tmp_path / "put"), b"x")
    assert (tmp_path / "put").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_local_mistakes_are_named(tmp_path):
    store = LocalStore()
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    assert kind_of(store.get, str(tmp_path)) == ErrorKind.UNSUPPORTED_URI
    assert kind_of(store.get, str(tmp_path / "file" / "below")) == ErrorKind.MISSING
    assert kind_of(store.put, str(tmp_path / "file" / "below"), b"") == ErrorKind.MISSING
    assert kind_of(store.get, str(tmp_path / ("x" * 300))) == ErrorKind.UNSUPPORTED_URI
    assert kind_of(store.get, str(tmp_path / "a\0b")) == ErrorKind.UNSUPPORTED_URI
    assert kind_of(store.get, str(tmp_path / "pipe")) == ErrorKind.UNSUPPORTED_URI
    assert kind_of(list, store.list(str(tmp_path / "nowhere"))) == ErrorKind.MISSING
    assert kind_of(list, store.list(str(tmp_path / "file"))) == ErrorKind.MISSING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_local_permissions_are_named(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "secret.jpg").chmod(0)
    assert kind_of(LocalStore().get, str(tmp_path / "secret.jpg")) == ErrorKind.FORBIDDEN


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        pytest.param(errno.EACCES, ErrorKind.FORBIDDEN, id="permission denied"),
        pytest.param(errno.EROFS, ErrorKind.FORBIDDEN, id="read-only file system"),
        pytest.param(errno.ENOSPC, ErrorKind.STORE_UNAVAILABLE, id="disk full"),
        pytest.param(errno.EIO, ErrorKind.STORE_UNAVAILABLE, id="input or output error"),
    ],
)
def test_file_systems_own_errors_become_storage_errors(tmp_path, monkeypatch, number, kind):
    tried = []

    def fail(source, target):
        tried.append(target)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    assert kind_of(LocalStore().put, str(tmp_path / "a"), b"x") == kind
    assert list(tmp_path.iterdir()) == []
    assert len(tried) == 1  # nothing local is waited for, least of all for a full disk to become empty


def test_missing_bucket_is_named(bucket):
    uri = "s3://no-such-bucket-here/a.jpg"
    with pytest.raises(StorageError, match=r"bucket 'no-such-bucket-here' does not exist") as raised:
        open_store(uri).get(uri)
    assert raised.value.kind == ErrorKind.MISSING
    with pytest.raises(StorageError, match=r"cannot write to s3://no-such-bucket-here/labels: .* does not exist"):
        open_store(uri).check_writable("s3://no-such-bucket-here/labels")


def test_unreachable_endpoint_is_a_transient_error(monkeypatch):
    use_store(monkeypatch, unused_endpoint())
    with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL") as raised:
        S3Store(patience=Patience(store_s=0)).get("s3://bucket/a.jpg")
    assert not raised.value.kind.permanent


@pytest.mark.parametrize("endpoint_url", ["localhost:9000", "not a url"])
def test_endpoint_that_is_no_url_is_named(monkeypatch, endpoint_url):
    use_store(monkeypatch, endpoint_url)
    with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL"):
        S3Store().get("s3://bucket/a.jpg")


def test_absent_credentials_are_named(monkeypatch):
    use_store(monkeypatch, unused_endpoint())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"AWS_NO_SIGN_REQUEST=1") as raised:
        S3Store().get("s3://bucket/a.jpg")
    assert raised.value.kind == ErrorKind.FORBIDDEN


def test_public_bucket_is_read_without_credentials(bucket, monkeypatch):
    open_store(bucket).put(f"{bucket}/a.jpg", b"x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")
    client = boto3.client("s3", aws_access_key_id="testing", aws_secret_access_key="testing")
    client.put_object_acl(Bucket=bucket.removeprefix("s3://"), Key="a.jpg", ACL="public-read")
    assert open_store(bucket).get(f"{bucket}/a.jpg") == b"x"


def test_impossible_bucket_name_is_named(bucket):
    assert kind_of(S3Store().get, "s3://Not A Bucket/a.jpg") == ErrorKind.UNSUPPORTED_URI
    assert kind_of(S3Store().get, "s3:///a.jpg") == ErrorKind.UNSUPPORTED_URI


@pytest.mark.parametrize(
    ("code", "status", "kind", "hint"),
    [
        ("NoSuchKey", 404, ErrorKind.MISSING, "no such object"),
        ("404", 404, ErrorKind.MISSING, "no such object"),
        ("AccessDenied", 403, ErrorKind.FORBIDDEN, "access denied"),
        ("403", 403, ErrorKind.FORBIDDEN, "access denied"),
        ("InvalidAccessKeyId", 403, ErrorKind.FORBIDDEN, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, ErrorKind.FORBIDDEN, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, ErrorKind.FORBIDDEN, "expired"),
        ("InvalidObjectState", 403, ErrorKind.FORBIDDEN, "archived"),
        ("SlowDown", 503, ErrorKind.STORE_UNAVAILABLE, "busy"),
        ("InternalError", 500, ErrorKind.STORE_UNAVAILABLE, "busy"),
        ("429", 429, ErrorKind.STORE_UNAVAILABLE, "busy"),
        ("InvalidBucketName", 400, ErrorKind.UNSUPPORTED_URI, "possible"),
    ],
)
def test_answers_of_s3_become_kinds_and_advice(code, status, kind, hint):
    error = refused("s3://photos/a.jpg", code=code, status=status, message="as the store put it")
    assert error.kind == kind
    assert str(error).startswith("s3://photos/a.jpg: ")
    assert hint in str(error)


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("/data/photos/", "/data/photos"),
        ("/data/./photos/../x", "/data/x"),
        ("file:///data/a%20b", "/data/a b"),
        ("/data/a%20b", "/data/a%20b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket//photos//", "s3://bucket/photos"),
        ("s3://bucket/a//b", "s3://bucket/a//b"),
    ],
)
def test_a_place_has_one_canonical_uri(uri, canonical):
    assert canonical_uri(uri) == canonical
    assert canonical_uri(canonical) == canonical


def test_home_and_working_folder_are_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert canonical_uri("~/photos") == canonical_uri("photos") == f"{tmp_path}/photos"


@pytest.mark.parametrize(
    ("text", "base", "resolved"),
    [
        ("a.jpg", "/tables", "/tables/a.jpg"),
        ("../images/a.jpg", "/data/tables", "/data/images/a.jpg"),
        ("/images/a.jpg", "/tables", "/images/a.jpg"),
        ("file:///images/a%20b.jpg", "/tables", "/images/a b.jpg"),
        ("s3://other/a.jpg", "/tables", "s3://other/a.jpg"),
        ("a.jpg", "s3://bucket/tables", "s3://bucket/tables/a.jpg"),
        ("a.jpg", "s3://bucket", "s3://bucket/a.jpg"),
        ("../images/./a.jpg", "s3://bucket/tables", "s3://bucket/images/a.jpg"),
        ("../../other-bucket/a.jpg", "s3://bucket/tables", "s3://bucket/other-bucket/a.jpg"),
        ("../a.jpg", "s3://bucket", "s3://bucket/a.jpg"),
        ("http://example.org/../a.jpg", "/tables", "http://example.org/../a.jpg"),
        ("https://me:pw@example.org/a.jpg?sig=1", "/tables", "https://example.org/a.jpg?sig=1"),
    ],
)
def test_uris_in_data_are_relative_to_their_table(text, base, resolved):
    assert resolve_uri(text, base) == resolved


def test_other_schemes_are_refused_by_name():
    with pytest.raises(StorageError, match=r"scheme 'http' is not supported; use a local path, file:// or s3://"):
        open_store("http://example.org/a.jpg")
