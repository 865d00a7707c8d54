import json

import pytest

from pipeline import s3
from pipeline.braces import expand_braces
from pipeline.fetch import FetchImage
from pipeline.manifest import image_rows, read_shard, sample_id, write_manifest
from pipeline.new_rows import NewRows
from pipeline.patience import Patience
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from schemas.rows import Turn, rows_of, to_columns
from tests.faulty_s3 import faulty_s3
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.tables import carried_by, put_bytes, rows_at, source_at
from tests.pipeline.tars import END, header, padded, tar
from tests.s3 import use_proxy

PICTURE = encode(four_corners(), "JPEG")


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    return request.getfixturevalue("bucket") + "/shards" if request.param == "s3" else str(tmp_path / "shards")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "shards")


def sample(key, image=PICTURE, **columns):
    return [(f"{key}.jpg", image), (f"{key}.json", json.dumps(columns).encode())]


def names_of(rows, uri):
    return [[image.uri.removeprefix(f"{uri}#") for image in row.images] for row in rows]


def fetch(rows, tmp_path, **options):
    """The rows by way of a manifest, each with its images' bytes."""
    stage = FetchImage(**{"max_bytes": 10**6, "image_column": None, **options})
    block = stage(to_columns(rows))
    return list(zip(rows_of(block), block["encoded"], strict=True))


def listed(uri, tmp_path, **spec):
    manifest = write_manifest(source_at(uri, **spec), str(tmp_path / "manifest"), limit=None)
    return [
        row
        for name in manifest.shards
        for batch in read_shard(str(tmp_path / "manifest" / name))
        for row in image_rows(batch, manifest_shard=name, recipes=[("ocr",)] * batch.num_rows)
    ]


def test_samples_come_from_all_shards_with_the_bytes_of_their_images(folder_uri, tmp_path):
    pictures = {f"{shard}/{number:02d}": bytes([shard, number]) * 3000 for shard in range(3) for number in range(20)}
    for shard in range(3):
        members = [(f"{name}.jpg", data) for name, data in pictures.items() if name.startswith(str(shard))]
        put_bytes(folder_uri, f"shard-{shard:06d}.tar", tar(members))
    rows = listed(folder_uri, tmp_path)
    fetched = fetch(rows, tmp_path)
    assert [encoded for _, encoded in fetched] == [[data] for data in pictures.values()]
    assert [row.error for row, _ in fetched] == [None] * 60
    assert [row.image_uri.rpartition("#")[2] for row in rows] == [f"{name}.jpg" for name in pictures]
    assert len({row.sample_id for row in rows}) == 60
    assert rows[21].place == f"{folder_uri}/shard-000001.tar#1"


def test_shards_are_named_by_braces_and_one_that_is_missing_is_told(folder_uri):
    for number in range(8, 12):
        put_bytes(folder_uri, f"train-{number:04d}.tar", tar(sample(f"k{number}")))
    rows = rows_at(f"{folder_uri}/train-{{0009..0011}}.tar")
    assert [row.images[0].uri for row in rows] == [f"{folder_uri}/train-{n:04d}.tar#k{n}.jpg" for n in (9, 10, 11)]
    with pytest.raises(StorageError, match="train-0007.tar") as caught:
        source_at(f"{folder_uri}/train-{{0007..0011}}.tar")
    assert caught.value.kind == ErrorKind.MISSING


def test_braces_stand_for_what_shells_make_of_them():
    assert expand_braces("a{000..2}") == ["a000", "a001", "a002"]
    assert expand_braces("a{2..0}") == ["a0", "a1", "a2"]
    assert expand_braces("a{0..6..3}.{x,y}") == ["a0.x", "a0.y", "a3.x", "a3.y", "a6.x", "a6.y"]
    assert expand_braces("a{b}{}") == ["a{b}{}"]
    for endless in ("{0..99999999999}", "{0..9999}{0..9999}", "{0..9..0}"):
        with pytest.raises(ValueError, match="stands for more than|steps of 0"):
            expand_braces(endless)


def test_glob_and_single_shard_are_sources_too(folder):
    put_bytes(folder, "a-0.tar", tar(sample("x")))
    put_bytes(folder, "b-0.tar", tar(sample("y")))
    assert names_of(rows_at(f"{folder}/b-*.tar"), f"{folder}/b-0.tar") == [["y.jpg"]]
    assert names_of(rows_at(f"{folder}/a-0.tar"), f"{folder}/a-0.tar") == [["x.jpg"]]


def test_columns_are_keys_of_the_json_and_texts_by_their_extension(folder_uri):
    members = [
        *sample("k", ask=["Who?", None, "Where?"], answer=["Me", "x", "Here"], width=3, note=None),
        ("k.txt", "a caption, ü".encode()),
        ("k.cls", b"7"),
        ("k.extra.txt", b"more"),
    ]
    uri = put_bytes(folder_uri, "a.tar", tar(members))
    columns = {"questions": "ask", "original_answers": "answer", "original_text": "txt", "queries": "extra.txt"}
    (row,) = rows_at(uri, columns=columns, carry=["__key__", "cls", "width", "note", "absent"])
    assert (row.questions, row.original_answers) == (("Who?", "Where?"), ("Me", "Here"))
    assert (row.original_text, row.queries) == ("a caption, ü", ("more",))
    assert carried_by(row) == {"__key__": "k", "cls": "7", "width": "3", "note": None, "absent": None}


def test_the_key_alone_is_carried_unless_the_job_names_more_and_then_no_text_is_read(folder):
    uri = put_bytes(folder, "a.tar", tar([("d/k.jpg", PICTURE), ("d/k.json", b"{broken"), ("d/k.txt", b"\xff")]))
    source = source_at(uri)
    (row,) = source.rows()
    assert (carried_by(row), row.error, source.num_ignored) == ({"__key__": "d/k"}, None, 2)
    (row,) = rows_at(uri, carry=[])
    assert row.carried == b""


def test_conversation_of_the_json_finds_images_among_the_members(folder):
    parts = [
        {"type": "image", "image": "1.jpg"},
        {"type": "image", "image": "d/k.0.jpg"},
        {"type": "text", "text": "?"},
    ]
    talk = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "!"}]}
    members = [("d/k.0.jpg", b"0"), ("d/k.1.jpg", b"1"), ("d/k.json", json.dumps(talk).encode())]
    text_only = ("t.json", json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode())
    uri = put_bytes(folder, "a.tar", tar([*members, text_only]))
    row, without = rows_at(uri, columns={"conversation": "auto"})
    assert row.error is None
    assert [image.uri.removeprefix(f"{uri}#") for image in row.images] == ["d/k.1.jpg", "d/k.0.jpg"]
    assert row.turns[0] == Turn(role="user", text="?", images=(0, 1))
    assert (without.images, without.turns[0].text, without.image_uri) == ((), "Hi", f"{uri}#1")


def test_images_of_one_key_are_one_sample_in_natural_order(folder_uri, tmp_path):
    members = [(f"k.{number}.jpg", bytes([number]) * 9) for number in (0, 1, 10, 2)]
    uri = put_bytes(folder_uri, "a.tar", tar([*members, ("k.b.png", b"b"), *sample("other")]))
    first, second = listed(uri, tmp_path)
    assert names_of([first], uri) == [["k.0.jpg", "k.1.jpg", "k.2.jpg", "k.10.jpg", "k.b.png"]]
    assert names_of([second], uri) == [["other.jpg"]]
    ((_, encoded),) = fetch([first], tmp_path)
    assert encoded == [bytes([number]) * 9 for number in (0, 1, 2, 10)] + [b"b"]


def test_job_may_say_which_members_are_the_images(folder):
    members = [("k.jpg", PICTURE), ("k.mask.png", b"mask"), ("k.bin", b"a picture of sorts")]
    uri = put_bytes(folder, "a.tar", tar(members))
    assert names_of(rows_at(uri, image_column="jpg"), uri) == [["k.jpg"]]
    assert names_of(rows_at(uri, image_column=".BIN"), uri) == [["k.bin"]]


def test_what_is_no_image_is_counted(folder):
    put_bytes(
        folder, "a.tar", tar([("README", b"x"), (".hidden.jpg", b"x"), ("d/", b""), *sample("k"), ("no.json", b"{}")])
    )
    put_bytes(folder, "stats.txt", b"x")
    put_bytes(folder, "a.json", b"{}")
    source = source_at(folder)
    assert len(list(source.rows())) == 1
    assert source.num_ignored == 2 + 4  # files; README, the hidden one, k.json, no.json
    assert len(list(source.rows())) == 1
    assert source.num_ignored == 6


def test_tables_and_images_beside_shards_are_told(folder):
    put_bytes(folder, "0.tar", tar(sample("k")))
    put_bytes(folder, "1.parquet", b"")
    with pytest.raises(
        ValueError, match=r"both tar files and Parquet files .*set source.format to webdataset or parquet"
    ):
        source_at(folder)
    assert len(rows_at(folder, format="webdataset")) == 1


def test_key_that_comes_again_is_another_sample(folder, tmp_path):
    uri = put_bytes(folder, "a.tar", tar([("k.jpg", b"1"), ("x.jpg", b"2"), ("k.jpg", b"3")]))
    rows = listed(uri, tmp_path)
    assert [encoded for _, encoded in fetch(rows, tmp_path)] == [[b"1"], [b"2"], [b"3"]]
    assert len({row.sample_id for row in rows}) == 3


BAD = {
    "json that is none": ([("k.jpg", b"1"), ("k.json", b"{")], "its json is not JSON"),
    "half a surrogate": ([("k.jpg", b"1"), ("k.json", b'{"a": "\\ud800"}')], "half of a surrogate"),
    "json nested too deeply": ([("k.jpg", b"1"), ("k.json", b"[" * 100_000)], "nested too deeply"),
    "text in no unicode": ([("k.jpg", b"1"), ("k.txt", b"\xff")], "its txt is not UTF-8, at byte 1"),
    "too much text": ([("k.jpg", b"1"), ("k.txt", b"x" * (2 << 20))], "bytes of text"),
    "member twice": ([("k.jpg", b"1"), ("k.jpg", b"2")], "has k.jpg twice"),
    "question that is none": ([("k.jpg", b"1"), ("k.json", b'{"ask": 5}')], "ask is not a text"),
}


@pytest.mark.parametrize(("members", "words"), BAD.values(), ids=BAD.keys())
def test_sample_that_cannot_be_understood_is_a_row_with_its_reason(folder, members, words):
    uri = put_bytes(folder, "a.tar", tar([*members, *sample("next")]))
    bad, good = rows_at(uri, columns={"questions": "ask"}, carry=["txt", "a"])
    assert bad.error is not None
    assert bad.error.kind == ErrorKind.BAD_SAMPLE
    assert words in bad.error.message
    assert f"{uri}, sample k:" in bad.error.message
    assert good.error is None


def test_list_in_a_json_has_no_columns(folder):
    uri = put_bytes(folder, "a.tar", tar([("k.jpg", b"1"), ("k.json", b"[1, 2]")]))
    (row,) = rows_at(uri, carry=["a"])
    assert (row.error, carried_by(row)) == (None, {"a": None})


@pytest.mark.parametrize(("type_", "words"), [(b"1", "is a link"), (b"2", "is a link"), (b"S", "is a sparse file")])
def test_image_that_is_a_link_or_sparse_is_quarantined(folder, type_, words):
    uri = put_bytes(folder, "a.tar", header("k.jpg", 0, type_=type_) + tar(sample("next")))
    bad, good = rows_at(uri)
    assert bad.error is not None
    assert words in bad.error.message
    assert (bad.images[0].uri, good.error) == (f"{uri}#k.jpg", None)


def test_sample_of_endless_members_is_one_row(folder):
    members = [("k.jpg", b"1")] + [(f"k.{number}.jpg", b"") for number in range(10_100)]
    source = source_at(put_bytes(folder, "a.tar", tar([*members, *sample("next")])))
    bad, good = source.rows()
    assert "more than 10000 members" in bad.error.message
    assert (len(bad.images), good.error, source.num_ignored) == (10_000, None, 101 + 1)


def test_names_that_lead_elsewhere_are_names_and_no_places(folder, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    names = ["../secret.jpg", str(secret), "a#9.jpg", "new\nline.jpg", "x" * 3000 + ".jpg"]
    uri = put_bytes(folder, "sh#ard.tar", tar([(name, b"in the tar") for name in names], format=2))
    rows = listed(uri, tmp_path)
    assert [encoded for _, encoded in fetch(rows, tmp_path)] == [[b"in the tar"]] * len(names)
    # tarfile itself drops the leading slash.
    assert [row.image_uri for row in rows] == [f"{uri}#{name}" for name in names]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tar(sample("k") * 3)[:1700], id="cut off"),
        pytest.param(header("k.jpg", 0, raw_size=b"\x80" + (8 << 40).to_bytes(11, "big")) + END, id="8 TB"),
        pytest.param(padded(b"<html>Not found</html>"), id="a web page"),
    ],
)
def test_shard_that_cannot_be_read_to_its_end_ends_the_listing_with_one_line(folder_uri, data):
    put_bytes(folder_uri, "0.tar", tar(sample("k")))
    uri = put_bytes(folder_uri, "1.tar", data)
    with pytest.raises(StorageError, match="cannot be read to its end as a tar file") as caught:
        rows_at(folder_uri)
    assert caught.value.kind == ErrorKind.UNREADABLE
    assert str(caught.value).startswith(f"{uri}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_compressed_shard_is_refused(folder, name):
    put_bytes(folder, name, b"\x1f\x8b")
    for uri in (folder, f"{folder}/{name}"):
        with pytest.raises(ValueError, match="is compressed.*unpack it"):
            source_at(uri)


def test_shards_without_an_image_are_no_source(folder):
    uri = put_bytes(folder, "a.tar", tar([("k.json", b"{}")]))
    with pytest.raises(ValueError, match="no sample with an image found in 1 tar files"):
        rows_at(uri)


def test_shard_that_changed_since_it_was_listed_gives_none_of_its_bytes(folder_uri, tmp_path):
    uri = put_bytes(folder_uri, "a.tar", tar(sample("k")))
    rows = listed(uri, tmp_path)
    put_bytes(folder_uri, "a.tar", tar(sample("k", b"another picture")))
    ((row, encoded),) = fetch(rows, tmp_path)
    assert (row.error.kind, encoded) == (ErrorKind.CHANGED, [])


def test_image_that_is_empty_or_too_large_is_not_read(folder_uri, tmp_path):
    uri = put_bytes(folder_uri, "a.tar", tar([("a.jpg", b""), ("b.jpg", b"12345"), ("c.jpg", b"1234")]))
    fetched = fetch(listed(uri, tmp_path), tmp_path, max_bytes=4)
    kinds = [row.error and row.error.kind for row, _ in fetched]
    assert kinds == [ErrorKind.EMPTY, ErrorKind.TOO_MANY_BYTES, None]
    assert "5 bytes, more than limits.max_bytes = 4" in fetched[1][0].error.message


def test_only_new_samples_are_new(folder_uri, tmp_path):
    put_bytes(folder_uri, "0.tar", tar([part for number in range(12) for part in sample(f"k{number}")]))
    put_bytes(folder_uri, "2.tar", tar(sample("z")))
    manifest = write_manifest(source_at(folder_uri), str(tmp_path / "manifest"), limit=None)
    put_bytes(folder_uri, "1.tar", tar(sample("new")))
    known = [[str(tmp_path / "manifest" / name) for name in manifest.shards]]
    rows = list(NewRows(source_at(folder_uri), known).rows())
    assert names_of(rows, f"{folder_uri}/1.tar") == [["new.jpg"]]
    assert sample_id(rows[0]) == sample_id(rows_at(f"{folder_uri}/1.tar")[0])


class TestRequests:
    @pytest.fixture
    def ranges(self, monkeypatch):
        asked, original = [], s3.S3Store.get_range

        def get_range(store, info, first, num_bytes):
            asked.append(num_bytes)
            return original(store, info, first, num_bytes)

        monkeypatch.setattr(s3.S3Store, "get_range", get_range)
        return asked

    def test_large_images_are_passed_over(self, bucket, ranges):
        members = [part for number in range(8) for part in sample(f"k{number}", bytes(2 << 20), ask="?")]
        uri = put_bytes(bucket, "a.tar", tar(members))
        rows = rows_at(uri, columns={"questions": "ask"})
        assert [row.questions for row in rows] == [("?",)] * 8
        assert len(ranges) <= 10  # one for each image, and one for the end
        assert sum(ranges) < (3 << 20)

    def test_small_images_are_read_over(self, bucket, ranges):
        members = [part for number in range(100) for part in sample(f"k{number}", bytes(20_000), ask="?")]
        uri = put_bytes(bucket, "a.tar", tar(members))
        assert len(rows_at(uri, columns={"questions": "ask"})) == 100
        assert len(ranges) == 3  # of 1 MiB

    def test_faults_of_the_store_are_waited_out(self, bucket, moto_endpoint, monkeypatch, tmp_path):
        uri = put_bytes(bucket, "a.tar", tar([part for number in range(10) for part in sample(f"k{number}")]))
        with faulty_s3(moto_endpoint, seed=3, rate=0.3) as proxy:
            use_proxy(monkeypatch, proxy.url, patience_s=30)
            fetched = fetch(listed(uri, tmp_path), tmp_path, patience=Patience(store_s=30))
        assert [encoded for _, encoded in fetched] == [[PICTURE]] * 10
