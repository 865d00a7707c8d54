"""URIs that a table names: nothing outside of the roots is read, however it is spelled."""

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.fetch import FetchImage
from pipeline.http import HttpStore
from pipeline.manifest import image_rows, read_shard, write_manifest
from pipeline.patience import Patience
from pipeline.storage import StorageError, join_uri, open_store, shown_uri
from pipeline.uri_policy import WEB_ATTEMPTS, UriPolicy
from schemas.errors import ErrorKind
from schemas.job import SourceSpec
from schemas.rows import rows_of, to_columns
from tests.pipeline.tables import IMAGE, put_table, source_at
from tests.web import PUBLIC, Page, web_server

SECRET = b"only the user may read this"


def refusal(policy: UriPolicy, uri: str) -> StorageError:
    with pytest.raises(StorageError) as raised:
        policy.get(uri, max_bytes=1000)
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`data/images` with an image in it, and secrets beside it and above it."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images-private").mkdir()
    (tmp_path / "data" / "images" / "a.jpg").write_bytes(b"an image")
    for secret in ("secret", "data/secret", "data/images-private/secret"):
        (tmp_path / secret).write_bytes(SECRET)
    return tmp_path


class TestLocalRoot:
    def test_is_read_below(self, folder: Path):
        for root in (folder / "data" / "images", folder / "data", Path("/")):
            policy = UriPolicy(roots=(str(root),))
            assert policy.get(f"{folder}/data/images/a.jpg", max_bytes=1000) == b"an image"
            assert policy.get(f"file://{folder}/data/images/%61.jpg", max_bytes=1000) == b"an image"
            assert policy.get(f"/{folder}/data//images/./a.jpg", max_bytes=1000) == b"an image"

    @pytest.mark.parametrize(
        "uri",
        [
            "/etc/passwd",
            "file:///etc/passwd",
            "FILE:///etc/passwd",
            "file://localhost/etc/passwd",
            "//etc/passwd",
            "{root}/../secret",
            "{root}/../images-private/secret",
            "{root}-private/secret",
            "{root}/x/../../secret",
            "{root}//..//secret",
            "file://{root}/../secret",
            "file://{root}/%2e%2e/secret",
            "file://{root}/%2E%2E%2Fsecret",
            "file://{root}%2f..%2fsecret",
            "{root}",
            "{root}/",
            "{root}/.",
            "~/secret",
            "s3://bucket/secret",
            "",
        ],
    )
    def test_is_not_left(self, folder: Path, monkeypatch: pytest.MonkeyPatch, uri: str):
        monkeypatch.setenv("HOME", str(folder))
        root = folder / "data" / "images"
        error = refusal(UriPolicy(roots=(str(root),)), uri.format(root=root))
        assert error.kind == ErrorKind.FORBIDDEN
        assert f"outside of source.image_roots ({root})" in str(error)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("%2e%2e/secret", ErrorKind.MISSING),
            ("..\\secret", ErrorKind.MISSING),
            ("．．/secret", ErrorKind.MISSING),
            ("‥/secret", ErrorKind.MISSING),
            ("..%00/secret", ErrorKind.MISSING),
            ("a.jpg\0.png", ErrorKind.UNSUPPORTED_URI),
            ("\ud800.jpg", ErrorKind.UNSUPPORTED_URI),
            ("x" * 300, ErrorKind.UNSUPPORTED_URI),
        ],
    )
    def test_is_not_left_by_names_that_only_look_like_it(self, folder: Path, name: str, kind: ErrorKind):
        root = folder / "data" / "images"
        assert refusal(UriPolicy(roots=(str(root),)), f"{root}/{name}").kind == kind

    def test_is_not_left_through_links(self, folder: Path):
        root = folder / "data" / "images"
        (root / "file").symlink_to(folder / "secret")
        (root / "up").symlink_to("..")
        (root / "inside").symlink_to("a.jpg")
        (root / "dangling").symlink_to(folder / "nothing")
        (root / "loop").symlink_to("loop")
        policy = UriPolicy(roots=(str(root),))
        assert policy.get(f"{root}/inside", max_bytes=1000) == b"an image"
        assert policy.get(f"{root}/up/images/a.jpg", max_bytes=1000) == b"an image"
        for name in ("file", "up/secret", "dangling"):
            assert refusal(policy, f"{root}/{name}").kind == ErrorKind.FORBIDDEN
        assert f"{root}/file (really {folder}/secret): is outside" in str(refusal(policy, f"{root}/file"))
        assert refusal(policy, f"{root}/loop").kind == ErrorKind.MISSING

    def test_may_itself_be_a_link(self, folder: Path):
        (folder / "link").symlink_to(folder / "data" / "images")
        policy = UriPolicy(roots=(f"{folder}/link",))
        for uri in (f"{folder}/link/a.jpg", f"{folder}/data/images/a.jpg"):
            assert policy.get(uri, max_bytes=1000) == b"an image"
        assert refusal(policy, f"{folder}/link/../secret").kind == ErrorKind.FORBIDDEN

    def test_holds_files_only_no_devices(self, folder: Path):
        os.mkfifo(folder / "data" / "images" / "pipe")
        policy = UriPolicy(roots=(f"{folder}/data/images", "/dev"))
        for uri in (f"{folder}/data/images/pipe", "/dev/zero"):
            assert refusal(policy, uri).kind == ErrorKind.UNSUPPORTED_URI


class TestS3Root:
    def test_is_read_below(self, bucket: str):
        for key in ("photos/a.jpg", "photos/b%20c//d..e.jpg"):
            open_store(bucket).put(f"{bucket}/{key}", b"an image")
            for root in (f"{bucket}/photos", bucket):
                assert UriPolicy(roots=("/elsewhere", root)).get(f"{bucket}/{key}", max_bytes=1000) == b"an image"
            upper = "S3" + f"{bucket}/{key}"[2:]
            assert UriPolicy(roots=(bucket,)).get(upper, max_bytes=1000) == b"an image"

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://bucket/secret",
            "s3://bucket/photos",
            "s3://bucket/photos-private/a.jpg",
            "s3://bucket/Photos/a.jpg",
            "s3://bucket//photos/a.jpg",
            "s3://bucket/photos/../secret",
            "s3://bucket/photos/./a.jpg",
            "s3://bucket/photos/%2e%2e/secret",
            "s3://bucket/photos/..%2fsecret",
            "s3://bucket/photos/..\\secret",
            "s3://bucket/%70hotos/a.jpg",
            "s3://other/photos/a.jpg",
            "s3://bucket.other/photos/a.jpg",
            "s3://BUCKET/photos/a.jpg",
            "S3://other/photos/a.jpg",
            "s3://bucket@other/photos/a.jpg",
            "s3://user:pw@bucket/photos/a.jpg",
            "s3://bucket:80/photos/a.jpg",
            "s3://bucket?x/photos/a.jpg",
            "s3://bucket\0/photos/a.jpg",
            "s3://bucket\\photos/a.jpg",
            "s3://buсket/photos/a.jpg",
            "s3://ｂucket/photos/a.jpg",
            "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/photos/a.jpg",
            "/bucket/photos/a.jpg",
        ],
    )
    def test_is_not_left(self, uri: str):
        error = refusal(UriPolicy(roots=("s3://bucket/photos",)), uri)
        assert error.kind == ErrorKind.FORBIDDEN
        assert "outside of source.image_roots (s3://bucket/photos)" in str(error)
        assert "pw" not in str(error)

    def test_needs_a_bucket(self):
        assert refusal(UriPolicy(roots=("s3://bucket",)), "s3:///photos/a.jpg").kind == ErrorKind.UNSUPPORTED_URI


def test_nothing_is_followed_unless_it_was_allowed():
    policy = UriPolicy()
    assert "source.image_roots (none)" in str(refusal(policy, "/etc/passwd"))
    assert refusal(policy, "s3://bucket/a.jpg").kind == ErrorKind.FORBIDDEN
    assert refusal(policy, "https://example.org/a.jpg").kind == ErrorKind.UNSUPPORTED_URI


@pytest.mark.parametrize("scheme", ["ftp", "gs", "data+x", "jar"])
def test_other_schemes_are_refused_whatever_the_roots(scheme: str):
    error = refusal(UriPolicy(roots=("/", "s3://bucket"), http=HttpStore()), f"{scheme}://user:pw@h/a?sig=SECRET")
    assert error.kind == ErrorKind.UNSUPPORTED_URI
    assert "pw" not in str(error)
    assert "SECRET" not in str(error)


@pytest.mark.parametrize("url", ["http://example.org/a.jpg?token=SECRET", "HTTPS://me:SECRET@example.org/a.jpg"])
def test_web_is_closed_unless_the_job_opens_it(url: str):
    error = refusal(UriPolicy(roots=("/",)), url)
    assert error.kind == ErrorKind.UNSUPPORTED_URI
    assert "source.allow_http: true" in str(error)
    assert "SECRET" not in str(error)


class TestOfSource:
    def test_roots_are_the_folder_of_the_source_by_default_and_the_list_alone_where_there_is_one(self, monkeypatch):
        monkeypatch.chdir("/usr")
        assert UriPolicy.of_source(SourceSpec(uri="x"), "/data").roots == ("/data",)
        given = SourceSpec(uri="x", image_roots=("s3://bucket/photos/", "lib", "file:///a%20b/"))
        assert UriPolicy.of_source(given, "/data").roots == ("s3://bucket/photos", "/usr/lib", "/a b")
        assert UriPolicy.of_source(SourceSpec(uri="x", image_roots=()), "/data").roots == ()

    def test_web_is_allowed_by_name_only(self):
        assert UriPolicy.of_source(SourceSpec(uri="x"), "/data").http is None
        allowed = UriPolicy.of_source(SourceSpec(uri="x", allow_http=True), "/data")
        assert pickle.loads(pickle.dumps(allowed)) == UriPolicy(roots=("/data",), http=HttpStore())

    def test_root_on_the_web_is_refused_in_one_line(self):
        with pytest.raises(ValueError, match=r"image_roots: http://x/: scheme 'http' is not supported.*allow_http"):
            UriPolicy.of_source(SourceSpec(uri="x", image_roots=("http://x/",)), "/data")

    @pytest.mark.parametrize(
        ("uri", "folder_uri"),
        [
            ("data", "data"),
            ("data/", "data"),
            ("data/t.parquet", "data"),
            ("data/t*.parquet", "data"),
            ("d*/*.parquet", ""),
        ],
    )
    def test_folder_of_a_source_is_what_its_uri_names(self, folder: Path, bucket: str, uri: str, folder_uri: str):
        for base in (str(folder), bucket):
            put_table(f"{base}/data", "t.parquet", {"image": [b"x"]})
            assert source_at(join_uri(base, uri)).folder_uri == join_uri(base, folder_uri).rstrip("/")


def fetched(source_uri: object, policy: UriPolicy, tmp_path: Path, *, image_column="image"):
    """What becomes of each row of a table, from its listing on."""
    source = source_at(source_uri, image_column=image_column)
    manifest = write_manifest(source, str(tmp_path / "manifest"), limit=None)
    (name,) = manifest.shards
    (batch,) = read_shard(str(tmp_path / "manifest" / name))
    rows = image_rows(batch, manifest_shard=name, recipes=[("ocr",)] * batch.num_rows)
    stage = FetchImage(max_bytes=1000, image_column=image_column, uri_policy=policy, patience=Patience(store_s=0))
    block = stage(to_columns(rows))
    return [
        (row.error and row.error.kind, b"".join(encoded))
        for row, encoded in zip(rows_of(block), block["encoded"], strict=True)
    ]


def test_table_that_names_secrets_costs_those_rows_and_no_others(folder: Path, tmp_path: Path):
    images = folder / "data" / "images"
    (images / "link.jpg").symlink_to(folder / "secret")
    names = ["a.jpg", "../secret", "/etc/passwd", f"file://{folder}/secret", "s3://anyone/a", "link.jpg", "./a.jpg"]
    table = put_table(str(images), "t.parquet", {"image": names})
    policy = UriPolicy.of_source(SourceSpec(uri=table), source_at(table).folder_uri)
    image, refused = (None, b"an image"), (ErrorKind.FORBIDDEN, b"")
    assert fetched(table, policy, tmp_path) == [image, *[refused] * 5, image]
    wider = UriPolicy(roots=(str(folder),))
    assert fetched(table, wider, tmp_path)[1] == (None, SECRET)


def test_paths_of_structs_are_held_to_the_roots_and_bytes_need_none(folder: Path, tmp_path: Path):
    images = [
        {"bytes": b"in the table", "path": "/etc/passwd"},
        {"bytes": None, "path": "/etc/passwd"},
        {"bytes": None, "path": "images/a.jpg"},
    ]
    table = put_table(f"{folder}/data", "t.parquet", {"image": pa.array(images, IMAGE)})
    assert fetched(table, UriPolicy(roots=(f"{folder}/data",)), tmp_path) == [
        (None, b"in the table"),
        (ErrorKind.FORBIDDEN, b""),
        (None, b"an image"),
    ]


def test_images_on_the_web_are_fetched_where_they_are_allowed(folder: Path, tmp_path: Path):
    http = HttpStore(resolve=lambda host, port: [PUBLIC], is_allowed=lambda address: address == PUBLIC)
    with web_server({"/a.jpg?sig=1": Page(b"from the web")}) as server:
        url = f"http://images.example:{server.server_address[1]}/a.jpg?sig=1"
        table = put_table(f"{folder}/data", "t.parquet", {"url": [url, url + "2"]})
        rows = fetched(table, UriPolicy(http=http), tmp_path, image_column="url")
        assert rows == [(None, b"from the web"), (ErrorKind.MISSING, b"")]
        rows = fetched(table, UriPolicy(), tmp_path, image_column="url")
        assert rows == [(ErrorKind.UNSUPPORTED_URI, b"")] * 2


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://host/a.jpg", "https://host/a.jpg"),
        ("https://host/@user/a:b@c.jpg", "https://host/@user/a:b@c.jpg"),
        ("https://host:80/a@b.jpg", "https://host:80/a@b.jpg"),
        ("https://[::1]/a@b.jpg", "https://[::1]/a@b.jpg"),
        ("https://host/a.jpg?X-Amz-Signature=s&x=1#f", "https://host/a.jpg?..."),
        ("https://host?token=s", "https://host?..."),
        ("https://host/a#token=s", "https://host/a?..."),
        ("HTTPS://user:pw@host/a", "HTTPS://host/a"),
        ("https://token@host/a", "https://host/a"),
        ("https://user:p@w@host/a", "https://host/a"),
        ("https://user:p/w@host/a", "https://host/a"),
        ("abfs://box@account/a?sig=s", "abfs://account/a?..."),
        ("s3://user:pw@bucket/a?b#c", "s3://bucket/a?b#c"),
        ("/data/a?b=1@c", "/data/a?b=1@c"),
        ("user:pw@host", "user:pw@host"),
    ],
)
def test_messages_show_a_uri_without_password_and_query(uri: str, shown: str):
    assert shown_uri(uri) == shown


def test_web_server_that_breaks_off_is_asked_again_a_few_times_and_one_that_says_no_is_not():
    http = HttpStore(resolve=lambda host, port: [PUBLIC], is_allowed=lambda address: address == PUBLIC)
    policy = UriPolicy(http=http)

    def break_off(handler):
        handler.server.pages["/a.jpg"] = Page(b"hello")

    pages = {"/a.jpg": Page(headers={"Content-Length": "5"}, send=break_off), "/b.jpg": Page(status=503)}
    with web_server(pages) as server:
        base = f"http://images.example:{server.server_address[1]}"
        assert policy.get(f"{base}/a.jpg", max_bytes=1000) == b"hello"
        assert refusal(policy, f"{base}/b.jpg").kind == ErrorKind.STORE_UNAVAILABLE
        assert refusal(policy, f"{base}/c.jpg").kind == ErrorKind.MISSING
        with pytest.raises(StorageError):
            policy.get(f"{base}/b.jpg", max_bytes=1000, patience=Patience(store_s=0))
        asked = [path for path, _ in server.asked]
    assert asked == ["/a.jpg"] * 2 + ["/b.jpg"] * WEB_ATTEMPTS + ["/c.jpg", "/b.jpg"]
