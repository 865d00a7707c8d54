import datetime
import decimal
import os

import pyarrow as pa
import pytest

from pipeline import s3
from pipeline.glob_pattern import glob_pattern
from pipeline.storage import StorageError, join_uri, open_store
from tests.pipeline.tables import IMAGE, put_table, rows_at, source_at


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("bucket") + "/source"
    (tmp_path / "source").mkdir()
    return str(tmp_path / "source")


def put_files(folder_uri, *names):
    for name in names:
        open_store(folder_uri).put(join_uri(folder_uri, name), b"x")


def names_of(rows, folder_uri):
    return [row.image_uri.removeprefix(folder_uri + "/") for row in rows]


def test_files_with_image_extensions_are_listed_and_the_rest_is_counted(folder_uri):
    put_files(folder_uri, "a.JPG", "deep/er/b.webp", "notes.txt", "noextension", ".hidden.jpg", ".cache/c.jpg")
    source = source_at(folder_uri)
    assert names_of(source.rows(), folder_uri) == ["a.JPG", "deep/er/b.webp"]
    assert source.num_ignored == 4
    assert (source.carried_schema, source.image_column) == (None, None)


@pytest.mark.parametrize("name", ["a.heic", "a.heif", "a.jxl", "a.svg", "a.avif", "a.CR2"])
def test_image_types_that_cannot_be_decoded_are_inputs_too(tmp_path, name):
    put_files(str(tmp_path), name)
    assert names_of(rows_at(tmp_path), str(tmp_path)) == [name]


def test_rows_can_be_listed_again(folder_uri):
    put_files(folder_uri, "a.jpg", "b.txt")
    source = source_at(folder_uri)
    assert list(source.rows()) == list(source.rows())
    assert source.num_ignored == 1


def test_trailing_slash_and_relative_path_name_the_same_images(tmp_path, monkeypatch):
    put_files(str(tmp_path / "photos"), "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert rows_at("photos/") == rows_at(tmp_path / "photos") == rows_at(f"file://{tmp_path}/photos")


def test_image_rows_have_the_version_of_the_store(folder_uri):
    put_files(folder_uri, "a.jpg")
    (row,) = rows_at(folder_uri)
    assert row.images[0].version == open_store(folder_uri).head(join_uri(folder_uri, "a.jpg")).version != ""


def test_one_file_is_a_source_whatever_its_extension(folder_uri):
    put_files(folder_uri, "photo", "other.jpg")
    assert names_of(rows_at(join_uri(folder_uri, "photo")), folder_uri) == ["photo"]


FILES = ("a.jpg", "b.JPG", "c.png", ".h.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/b.dat", "x/.h/a.jpg", "x2/a.jpg", "[1].jpg")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*.jpg", ["a.jpg", "[1].jpg"]),
        ("*", ["a.jpg", "b.JPG", "c.png", "[1].jpg"]),
        ("?.*", ["a.jpg", "b.JPG", "c.png"]),
        ("[ab].*", ["a.jpg", "b.JPG"]),
        ("[!ab].*", ["c.png"]),
        ("[a-b].jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/a.jpg", "x/y/a.jpg", "x2/a.jpg", "[1].jpg"]),
        ("**", ["a.jpg", "b.JPG", "c.png", "x/a.jpg", "x/y/a.jpg", "x/y/b.dat", "x2/a.jpg", "[1].jpg"]),
        ("x/**", ["x/a.jpg", "x/y/a.jpg", "x/y/b.dat"]),
        ("x/**/a.jpg", ["x/a.jpg", "x/y/a.jpg"]),
        ("x*/*.jpg", ["x/a.jpg", "x2/a.jpg"]),
        ("*/y/*", ["x/y/a.jpg", "x/y/b.dat"]),
        (".h.*", [".h.jpg"]),
        ("x/.*/*", ["x/.h/a.jpg"]),
        ("[[]1].jpg", ["[1].jpg"]),
        ("[1].jpg", []),
        ("a.jp[g", []),
        ("*.(jpg|png)", []),
    ],
)
def test_glob_matches(pattern, matches):
    glob = glob_pattern(f"/folder/{pattern}")
    below = len(glob.folder_uri) + 1
    found = [name for name in FILES if f"/folder/{name}".startswith(glob.folder_uri + "/")]
    found = [name for name in found if glob.regex.match(f"/folder/{name}"[below:])]
    assert found == matches
    assert all(f"/folder/{name}"[below:].startswith(glob.starting_with) for name in found)


def test_glob_lists_every_match_and_nothing_else(folder_uri):
    put_files(folder_uri, *FILES)
    assert names_of(rows_at(join_uri(folder_uri, "x/**")), folder_uri) == ["x/a.jpg", "x/y/a.jpg", "x/y/b.dat"]
    assert names_of(rows_at(join_uri(folder_uri, "x*/*.jpg")), folder_uri) == ["x/a.jpg", "x2/a.jpg"]


def test_name_that_exists_is_not_taken_for_a_glob(folder_uri):
    put_files(folder_uri, "1.jpg", "[1].jpg", "set[1]/a.jpg")
    assert names_of(rows_at(join_uri(folder_uri, "[1].jpg")), folder_uri) == ["[1].jpg"]
    assert names_of(rows_at(join_uri(folder_uri, "set[1]")), folder_uri) == ["set[1]/a.jpg"]


def test_glob_with_impossible_brackets_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\[z-a\].jpg' is not a valid pattern"):
        source_at(tmp_path / "[z-a].jpg")


def test_empty_source_says_what_was_looked_at(folder_uri):
    put_files(folder_uri, "notes.txt", "more.txt")
    with pytest.raises(
        ValueError, match=r"no images, Parquet files, .* or PDF files found at .*/source \(2 other files"
    ):
        source_at(folder_uri)
    with pytest.raises(ValueError, match=r"found at .*/\*\.jpg \(0 other"):
        source_at(join_uri(folder_uri, "*.jpg"))


def test_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"nowhere: no such file or folder"):
        source_at(tmp_path / "nowhere")


def test_images_and_tables_in_one_folder_need_a_format(folder_uri):
    put_files(folder_uri, "a.jpg", "z.txt")
    put_table(folder_uri, "t.parquet", {"image": [b"x"]})
    with pytest.raises(ValueError, match=r"holds both images and Parquet files .* set source.format"):
        rows_at(folder_uri)
    images = source_at(folder_uri, format="images")
    assert (names_of(images.rows(), folder_uri), images.num_ignored) == (["a.jpg"], 2)
    tables = source_at(folder_uri, format="parquet")
    assert (names_of(tables.rows(), folder_uri), tables.num_ignored) == (["t.parquet#0"], 2)


def test_image_files_have_no_columns(tmp_path):
    put_files(str(tmp_path), "a.jpg")
    with pytest.raises(ValueError, match=r"holds image files, which have no columns; 'prompts'"):
        source_at(tmp_path, columns={"questions": "prompts"})
    with pytest.raises(ValueError, match=r"'width'"):
        source_at(tmp_path, carry=("width",))


@pytest.mark.skipif(os.fsencode("\udcff") != b"\xff", reason="file names here are not bytes")
def test_file_name_that_is_not_text_is_named(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"\\udcff.jpg': this file name is not valid UTF-8"):
        rows_at(tmp_path)


def test_bytes_in_a_table_are_named_by_row_group_and_row(folder_uri):
    uri = put_table(folder_uri, "t.parquet", {"image": [b"a", None, b"c"]}, row_group_size=2)
    rows = rows_at(uri)
    assert [(row.image_uri, row.images[0].member) for row in rows] == [
        (f"{uri}#0", "0:0"),
        (f"{uri}#1", "0:1"),
        (f"{uri}#2", "1:0"),
    ]
    assert {row.images[0].version for row in rows} == {open_store(uri).head(uri).version}
    assert {row.carried for row in rows} == {b""}


def test_tables_of_a_folder_follow_each_other(folder_uri):
    first = put_table(folder_uri, "a/1.parquet", {"image": [b"a"], "n": [1]})
    second = put_table(folder_uri, "b/2.PARQUET", {"image": [b"b"], "n": [2]})
    source = source_at(folder_uri)
    assert [row.image_uri for row in source.rows()] == [f"{first}#0", f"{second}#0"]
    assert [row.image_uri for row in rows_at(join_uri(folder_uri, "*/*.parquet"))] == [f"{first}#0"]


def test_uris_in_a_table_are_files_and_stay_separate_rows(folder_uri):
    uris = ["a.jpg", "../other/b.jpg", "/abs/c.jpg", "s3://else/d.jpg", "http://e.org/e.jpg", "a.jpg", None, ""]
    table = put_table(folder_uri, "t.parquet", {"url": uris})
    rows = rows_at(table)
    parent = folder_uri.rpartition("/")[0]
    assert [row.image_uri for row in rows] == [
        f"{folder_uri}/a.jpg",
        f"{parent}/other/b.jpg",
        "/abs/c.jpg",
        "s3://else/d.jpg",
        "http://e.org/e.jpg",
        f"{folder_uri}/a.jpg",
        f"{table}#6",
        f"{table}#7",
    ]
    assert [row.place for row in rows] == [f"{table}#{number}" for number in range(8)]
    assert [row.images[0].member for row in rows] == [""] * 6 + ["0:6", "0:7"]
    assert [row.images[0].version == "" for row in rows] == [True] * 6 + [False] * 2


BOTH, BYTES, PATH, NEITHER = (
    {"bytes": b"x", "path": "p.jpg"},
    {"bytes": b"x", "path": None},
    {"bytes": None, "path": "p.jpg"},
    {"bytes": None, "path": None},
)


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "no statistics"])
@pytest.mark.parametrize(
    "images",
    [
        pytest.param([BOTH, BYTES], id="bytes only"),
        pytest.param([PATH, PATH], id="paths only"),
        pytest.param([BOTH, None, BYTES], id="bytes and nulls"),
        pytest.param([BOTH, PATH, NEITHER, None, BYTES], id="everything"),
        pytest.param([None, None], id="nulls only"),
    ],
)
def test_struct_is_a_uri_only_where_the_bytes_are_null(tmp_path, images, statistics):
    table = put_table(str(tmp_path), "t.parquet", {"image": pa.array(images, IMAGE)}, write_statistics=statistics)
    expected = [f"{tmp_path}/p.jpg" if image == PATH else f"{table}#{number}" for number, image in enumerate(images)]
    assert [row.image_uri for row in rows_at(table)] == expected


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ([("photo", pa.binary()), ("url", pa.string())], "photo"),
        ([("photo", pa.large_binary())], "photo"),
        ([("photo", IMAGE), ("image", pa.string())], "photo"),
        ([("caption", pa.string()), ("file_name", pa.string())], "file_name"),
        ([("uri", pa.dictionary(pa.int32(), pa.string()))], "uri"),
        ([("url", pa.int64()), ("path", pa.string())], "path"),
    ],
)
def test_image_column_is_found(tmp_path, schema, found):
    put_table(str(tmp_path), "t.parquet", [[]] * len(schema), pa.schema(schema))
    assert source_at(tmp_path).image_column == found


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([("photo", pa.binary()), ("mask", pa.binary())], "photo, mask could all be the image column"),
        ([("url", pa.string()), ("path", pa.string())], "url, path could all be the image column"),
        ([("caption", pa.string()), ("n", pa.int64())], "no column looks like images.*: caption, n"),
    ],
)
def test_image_column_that_is_not_clear_must_be_named(tmp_path, schema, message):
    put_table(str(tmp_path), "t.parquet", [[]] * len(schema), pa.schema(schema))
    with pytest.raises(ValueError, match=rf"t.parquet: {message}"):
        source_at(tmp_path)


def test_named_columns_must_exist_and_have_a_fitting_type(tmp_path):
    put_table(str(tmp_path), "t.parquet", {"image": [b"x"], "n": [1]})
    with pytest.raises(ValueError, match=r"no column 'photo'; it has: image, n"):
        source_at(tmp_path, image_column="photo")
    with pytest.raises(ValueError, match=r"image column 'n' is int64"):
        source_at(tmp_path, image_column="n")
    with pytest.raises(ValueError, match=r"no column 'asks'; it has: image, n"):
        source_at(tmp_path, columns={"questions": "asks"})
    with pytest.raises(ValueError, match=r"column 'n' is int64; it must be string or list<string>"):
        source_at(tmp_path, columns={"queries": "n"})
    with pytest.raises(ValueError, match=r"no column 'm'"):
        source_at(tmp_path, carry=("m",))
    with pytest.raises(ValueError, match=r"source.carry names 'image', the image column"):
        source_at(tmp_path, carry=("image",))


def test_questions_are_lists_or_single_strings_and_null_is_none(tmp_path):
    columns = {
        "image": [b"a", b"b", b"c"],
        "asks": [["q1", None, "q3"], [], None],
        "replies": [["r1", "r2", None], None, []],
        "find": ["the dog", None, "a cat"],
    }
    put_table(str(tmp_path), "t.parquet", columns)
    rows = rows_at(tmp_path, columns={"questions": "asks", "original_answers": "replies", "queries": "find"}, carry=())
    assert [row.questions for row in rows] == [("q1", "q3"), (), ()]
    assert [row.original_answers for row in rows] == [("r1", None), (), ()]
    assert [row.queries for row in rows] == [("the dog",), (), ("a cat",)]
    assert {row.carried for row in rows} == {b""}


def test_carried_columns_keep_types_and_values(tmp_path):
    fields = {
        "n": pa.array([1, None], pa.int16()),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "taken": pa.array([datetime.datetime(2024, 5, 1, 12), None], pa.timestamp("us", tz="UTC")),
        "tags": pa.array([[["a"], []], None], pa.list_(pa.list_(pa.string()))),
        "place": pa.array([{"lat": 1.5}, None], pa.struct([("lat", pa.float32())])),
        "class": pa.array(["cat", None]).dictionary_encode(),
        "extra": pa.array([b"\0\1", b""], pa.large_binary()),
    }
    put_table(str(tmp_path), "t.parquet", {"image": [b"x", b"y"], **fields})
    source = source_at(tmp_path, image_column="image")
    carried = pa.table(fields)
    assert source.carried_schema == carried.schema
    rows = [pa.ipc.open_stream(row.carried).read_all() for row in source.rows()]
    assert [row.num_rows for row in rows] == [1, 1]
    assert [row.schema for row in rows] == [carried.schema] * 2
    assert [row.to_pylist()[0] for row in rows] == carried.to_pylist()


def test_each_carried_row_holds_its_own_values_only(tmp_path):
    names = [f"category {number:05d} " + "x" * 100 for number in range(2000)]
    columns = {"image": [b"x"] * 2000, "class": pa.array(names).dictionary_encode(), "text": names}
    put_table(str(tmp_path), "t.parquet", columns)
    sizes = [len(row.carried) for row in rows_at(tmp_path)]
    assert max(sizes) < 2000


def test_chosen_columns_are_carried_in_their_order(tmp_path):
    put_table(str(tmp_path), "t.parquet", {"a": [1], "image": [b"x"], "b": [2], "c": [3]})
    source = source_at(tmp_path, carry=("c", "a"))
    (row,) = source.rows()
    assert source.carried_schema.names == ["c", "a"]
    assert pa.ipc.open_stream(row.carried).read_all().to_pylist() == [{"c": 3, "a": 1}]


def test_tables_that_carry_different_columns_are_both_named(tmp_path):
    put_table(str(tmp_path), "1.parquet", {"image": [b"x"], "n": [1]})
    put_table(str(tmp_path), "2.parquet", {"image": [b"x"], "n": ["1"]})
    with pytest.raises(
        ValueError, match=r"1.parquet and .*2.parquet carry different columns: {n: int64} and {n: string}"
    ):
        rows_at(tmp_path)
    assert len(rows_at(tmp_path, carry=())) == 2


def test_tables_without_rows_are_an_empty_source(tmp_path):
    put_table(str(tmp_path), "t.parquet", {"image": pa.array([], pa.binary())})
    with pytest.raises(ValueError, match=r"no row found in 1 Parquet files, the first .*t.parquet"):
        rows_at(tmp_path)


def test_file_that_is_not_parquet_is_named(tmp_path):
    put_files(str(tmp_path), "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet file"):
        source_at(tmp_path)


def test_listing_reads_a_small_part_of_a_table_of_images(bucket, monkeypatch):
    images = pa.array([{"bytes": os.urandom(1_000_000), "path": f"{number}.jpg"} for number in range(12)], IMAGE)
    uri = put_table(bucket, "t.parquet", {"n": list(range(12)), "image": images}, compression="none")
    num_bytes_read = []
    original = s3.S3Store.get_range
    monkeypatch.setattr(
        s3.S3Store,
        "get_range",
        lambda self, info, first, num_bytes: num_bytes_read.append(num_bytes) or original(self, info, first, num_bytes),
    )
    assert len(rows_at(uri)) == 12
    assert sum(num_bytes_read) < 4_000_000, num_bytes_read
