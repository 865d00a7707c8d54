"""SFT files as people write them -> rows; and rows of several images or none through the stages, to their labels."""

import asyncio
import dataclasses
import gzip
import json
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from model.tiling import tile_image
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.patience import Patience
from pipeline.prepare import TileImage
from pipeline.storage import StorageError, join_uri, open_store
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, Stage
from schemas.job import EngineSpec, SourceSpec
from schemas.rows import TILES_COLUMN, ImageRow, Mark, RowImage, Turn, rows_of, to_columns
from tests.pipeline.outputs import commit, job_of, pending, resolve, table_at
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.tables import IMAGE, put_table, rows_at, source_at

CONVERSATION = {"conversation": "auto"}
ANSWER = {"from": "gpt", "value": "A dog."}
ASK = {"from": "human", "value": "<image>\nWhat is it?"}


def put_lines(folder, *samples, name="sft.jsonl") -> str:
    uri = join_uri(str(folder), name)
    open_store(uri).put(uri, b"".join(json.dumps(sample).encode() + b"\n" for sample in samples))
    return uri


def row_of(folder, sample, **options):
    """The row of the one sample of a file."""
    (row,) = rows_at(put_lines(folder, sample), **{"columns": CONVERSATION, **options})
    return row


def names(row, folder) -> list[str]:
    return [image.uri.removeprefix(f"{folder}/") for image in row.images]


def turns(row) -> list[tuple]:
    return [(turn.role, turn.text, turn.images) for turn in row.turns]


def reason(row) -> str:
    assert row.error is not None
    assert (row.error.kind, row.error.stage, row.error.kind.permanent) == (ErrorKind.BAD_SAMPLE, Stage.LIST, True)
    return row.error.message


class TestConversations:
    def test_llava_sample_becomes_turns_and_the_images_before_them(self, tmp_path):
        row = row_of(tmp_path, {"id": "7", "image": "a.jpg", "conversations": [ASK, ANSWER]})
        assert (names(row, tmp_path), row.error) == (["a.jpg"], None)
        assert row.place == f"{tmp_path}/sft.jsonl#1"
        assert turns(row) == [("user", "What is it?", (0,)), ("assistant", "A dog.", ())]
        assert pa.ipc.open_stream(row.carried).read_all().to_pydict() == {"id": ["7"]}

    @pytest.mark.parametrize(
        ("image", "value", "text", "images"),
        [
            pytest.param(["a", "b"], "<image>\n<image>\nCompare.", "Compare.", (0, 1), id="two at the start"),
            pytest.param("a", "What is it?\n<image>", "What is it?", (0,), id="at the end"),
            pytest.param("a", "Is it <image>?", "Is it ?", (0,), id="in the middle"),
            pytest.param("a", "<image>", "", (0,), id="alone"),
            pytest.param("a", "What is it?", "What is it?", (0,), id="no mark"),
            pytest.param(["a", "b"], "<image>\nCompare.", "Compare.", (0, 1), id="fewer marks than images"),
            pytest.param("a", "<image>\nWhat does <image> mean?", "What does <image> mean?", (0,), id="further mark"),
            pytest.param(None, "<image>\nWhat does it mean?", "<image>\nWhat does it mean?", (), id="no image"),
            pytest.param("", "Who are you?", "Who are you?", (), id="empty name"),
            pytest.param([], "Who are you?", "Who are you?", (), id="empty list"),
            pytest.param("a", "<|User|><image>\n{question}", "<|User|>\n{question}", (0,), id="turn mark"),
        ],
    )
    def test_marks_stand_for_images_as_long_as_there_are_any(self, tmp_path, image, value, text, images):
        row = row_of(tmp_path, {"image": image, "conversations": [{"from": "human", "value": value}, ANSWER]})
        assert turns(row)[0] == ("user", text, images)

    def test_images_are_in_the_order_of_their_marks_over_all_turns(self, tmp_path):
        second = {"from": "human", "value": "And <image>\nthis?"}
        sample = {"images": ["a", "b", "c"], "conversations": [ASK, ANSWER, second, ANSWER]}
        row = row_of(tmp_path, sample)
        assert [turn.images for turn in row.turns] == [(0,), (), (1, 2), ()]
        assert names(row, tmp_path) == ["a", "b", "c"]

    def test_mark_in_an_answer_or_a_system_prompt_is_text(self, tmp_path):
        system, answer = {"from": "system", "value": "<image>"}, {"from": "gpt", "value": "Write <image>."}
        row = row_of(tmp_path, {"image": "a", "conversations": [system, ASK, answer]})
        assert turns(row) == [
            ("system", "<image>", ()),
            ("user", "What is it?", (0,)),
            ("assistant", "Write <image>.", ()),
        ]

    def test_parts_of_a_message_hold_no_marks(self, tmp_path):
        parts = [
            {"type": "text", "text": "Look:"},
            {"type": "image_url", "image_url": {"url": "a.jpg"}},
            {"type": "image", "image": "b.jpg"},
            {"type": "text", "text": "Where is <image>?"},
        ]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Here."}]
        row = row_of(tmp_path, {"messages": messages})
        assert turns(row) == [("user", "Look:\nWhere is <image>?", (0, 1)), ("assistant", "Here.", ())]
        assert names(row, tmp_path) == ["a.jpg", "b.jpg"]

    def test_parts_without_a_name_take_the_images_beside_the_messages(self, tmp_path):
        image, text = {"type": "image"}, {"type": "text", "text": "?"}
        named = {"type": "image", "path": "c"}
        messages = [{"role": "user", "content": [named, text, image]}, {"role": "user", "content": [image]}]
        row = row_of(tmp_path, {"messages": messages, "images": ["a", "b", "c"]})
        assert names(row, tmp_path) == ["c", "a", "b"]
        assert [turn.images for turn in row.turns] == [(0, 1), (2,)]

    def test_text_of_a_message_marks_the_images_beside_it(self, tmp_path):
        messages = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "That."}]
        row = row_of(tmp_path, {"messages": messages, "images": [{"path": "a"}]})
        assert (names(row, tmp_path), turns(row)[0]) == (["a"], ("user", "What?", (0,)))

    @pytest.mark.parametrize(
        ("sample", "message"),
        [
            ({"text": "x"}, "has no conversations or messages; it has: text"),
            ({"conversations": []}, "no user turn among the 0 messages"),
            ({"conversations": "Hello"}, "the conversation is a text instead of a list of messages"),
            ({"conversations": ["Hello"]}, "message 0 of the conversation is a text instead of an object"),
            ({"conversations": [{"from": "tool", "value": "x"}]}, "message 0 of the conversation is from 'tool'"),
            ({"conversations": [{"from": "human", "value": None}]}, "message 0 of the conversation has null for its"),
            ({"conversations": [ANSWER]}, "no user turn among the 1 messages"),
            ({"conversations": [ASK, {"from": "system", "value": "x"}]}, "a system turn stands after other turns"),
            ({"conversations": [ASK], "image": 7}, "names an image by a number instead of a path"),
            ({"conversations": [ASK], "image": ["a", ""]}, "names an image by an empty text"),
            ({"conversations": [ASK], "image": "data:image/png;base64,AAAA"}, "holds an image as a data: URI"),
            ({"conversations": [ASK], "image": "a", "images": ["b"]}, "has both image and images"),
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "more image marks than there are"),
            ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "a part of type 'video'"),
            ({"messages": [{"role": "assistant", "content": [{"type": "image", "path": "a"}]}]}, "is the assistant's"),
            ([1], "is a list instead of an object"),
        ],
    )  # fmt: skip
    def test_sample_that_cannot_be_understood_is_a_row_with_its_reason(self, tmp_path, sample, message):
        row = row_of(tmp_path, sample)
        assert reason(row).startswith(f"{tmp_path}/sft.jsonl, line 1: ")
        assert message in reason(row)
        assert row.images == ()


class TestColumns:
    def test_keys_are_read_like_columns_of_a_table(self, tmp_path):
        columns = {"questions": "asks", "original_answers": "replies", "queries": "find", "original_text": "alt"}
        sample = {
            "image": "a",
            "asks": ["Why?", None, "Who?"],
            "replies": ["So.", "x"],
            "find": "the dog",
            "alt": "dog",
        }
        row = row_of(tmp_path, sample, columns={**columns, "marks": "drawn"})
        assert (row.questions, row.original_answers, row.queries) == (("Why?", "Who?"), ("So.",), ("the dog",))
        assert (row.original_text, row.marks, row.turns) == ("dog", (), ())

    def test_marks_are_read_with_points_in_either_form(self, tmp_path):
        drawn = [
            {"kind": "box", "points": [[1, 2], [3.5, 4]], "color": "blue"},
            {"kind": "scribble", "points": [{"x": 0, "y": 1}] * 3},
        ]
        row = row_of(tmp_path, {"image": "a", "drawn": drawn}, columns={"marks": "drawn"})
        assert row.marks == (
            Mark(kind="box", points=((1, 2), (3.5, 4)), color="blue"),
            Mark(kind="scribble", points=((0, 1),) * 3),
        )

    @pytest.mark.parametrize(
        "mark",
        [{"kind": "star"}, {"kind": "box", "points": [[1, 2]]}, {"kind": "box", "points": [[1, 2], [3, 1e400]]}, "box"],
    )
    def test_mark_that_cannot_be_drawn_is_the_rows_error(self, tmp_path, mark):
        assert reason(row_of(tmp_path, {"image": "a", "drawn": [mark]}, columns={"marks": "drawn"}))

    def test_what_is_carried_is_text_whatever_it_is_in_other_lines(self, tmp_path):
        samples = [{"image": "a", "n": 1, "m": {"ü": [1]}}, {"image": "a", "n": "1"}, {"image": "a", "n": None}]
        source = source_at(put_lines(tmp_path, *samples), carry=("n", "m"))
        carried = [pa.ipc.open_stream(row.carried).read_all().to_pylist()[0] for row in source.rows()]
        assert carried == [{"n": "1", "m": '{"ü": [1]}'}, {"n": "1", "m": None}, {"n": None, "m": None}]
        assert source.carried_schema == pa.schema([("n", pa.string()), ("m", pa.string())])

    def test_column_of_another_type_is_the_rows_error(self, tmp_path):
        row = row_of(tmp_path, {"image": "a", "asks": [1]}, columns={"questions": "asks"})
        assert "asks is not a text or a list of texts" in reason(row)


class TestFiles:
    def test_images_lie_beside_the_file_or_below_the_root_that_is_named(self, tmp_path):
        sample = {"images": ["a.jpg", "x/../b.jpg", "/abs/c.jpg", "s3://b/d", "https://e.org/f"]}
        others = ["/abs/c.jpg", "s3://b/d", "https://e.org/f"]
        assert [image.uri for image in row_of(tmp_path, sample, columns={}).images] == [
            f"{tmp_path}/a.jpg",
            f"{tmp_path}/b.jpg",
            *others,
        ]
        row = row_of(tmp_path, sample, columns={}, image_root="s3://bucket/train/")
        assert [image.uri for image in row.images] == ["s3://bucket/train/a.jpg", "s3://bucket/train/b.jpg", *others]

    def test_root_that_is_named_is_what_samples_may_read(self):
        spec = SourceSpec(uri="/data/sft.jsonl", image_root="/photos")
        assert UriPolicy.of_source(spec, "/data").roots == ("/photos",)
        listed = SourceSpec(uri="/data/sft.jsonl", image_root="/photos", image_roots=("/data", "/photos/a"))
        assert UriPolicy.of_source(listed, "/data").roots == ("/data", "/photos/a")
        web = SourceSpec(uri="/data/sft.jsonl", image_root="https://e.org/a", allow_http=True)
        assert UriPolicy.of_source(web, "/data").roots == ()

    @pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.ndjson", "t.JSON.gz", "t.jsonl.gz"])
    def test_file_is_read_as_its_name_says(self, tmp_path, name):
        samples = [{"image": "a", "n": 1}, {"image": "b", "n": 2}]
        encoded = json.dumps(samples).encode() if ".json." in f"{name}.".lower() else b"\n".join(
            json.dumps(sample).encode() for sample in samples
        )  # fmt: skip
        (tmp_path / name).write_bytes(gzip.compress(encoded) if name.endswith("gz") else encoded)
        rows = rows_at(tmp_path / name)
        assert [names(row, tmp_path) for row in rows] == [["a"], ["b"]]
        first = 0 if ".json." in f"{name}.".lower() else 1
        assert [row.place.rpartition("#")[2] for row in rows] == [str(first), str(first + 1)]

    def test_packed_file_that_is_cut_off_keeps_what_came_before(self, tmp_path):
        packed = gzip.compress(b"".join(b'{"image": "%d.jpg"}\n' % number for number in range(50_000)))
        (tmp_path / "t.jsonl.gz").write_bytes(packed[: len(packed) // 2])
        *rows, last = rows_at(tmp_path / "t.jsonl.gz")
        assert len(rows) > 1000
        assert all(row.error is None for row in rows)
        assert f"line {len(rows) + 1}: cannot be unpacked" in reason(last)

    def test_file_that_is_not_packed_as_its_name_says_is_a_row(self, tmp_path):
        (tmp_path / "t.jsonl.gz").write_bytes(b'{"image": "a"}')
        (row,) = rows_at(tmp_path / "t.jsonl.gz")
        assert "cannot be unpacked" in reason(row)

    def test_source_without_any_sample_is_refused(self, tmp_path):
        (tmp_path / "t.jsonl").write_bytes(b"\n\n")
        with pytest.raises(ValueError, match="no sample found in 1 JSON files, the first .*t.jsonl"):
            rows_at(tmp_path)

    def test_files_of_a_folder_follow_each_other_and_images_beside_them_are_no_others(self, tmp_path):
        put_lines(tmp_path, {"image": "images/1.jpg"}, name="b/2.jsonl")
        put_lines(tmp_path, {"image": "images/1.jpg"}, {"image": "a.png"}, name="a.jsonl")
        (tmp_path / "a.png").write_bytes(b"x")
        source = source_at(tmp_path, format="json")
        assert [row.place.removeprefix(f"{tmp_path}/") for row in source.rows()] == [
            "a.jsonl#1",
            "a.jsonl#2",
            "b/2.jsonl#1",
        ]
        assert source.num_ignored == 0

    def test_json_beside_images_is_the_source_only_where_columns_are_read(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"x")
        put_lines(tmp_path, {"image": "a.jpg", "ask": "Why?"})
        images = source_at(tmp_path)
        assert [names(row, tmp_path) for row in images.rows()] == [["a.jpg"]]
        assert images.num_ignored == 1
        assert [row.questions for row in rows_at(tmp_path, columns={"questions": "ask"})] == [("Why?",)]

    def test_json_beside_tables_is_about_them(self, tmp_path):
        put_lines(tmp_path, {"image": "a.jpg"}, name="info.json")
        put_table(str(tmp_path), "t.parquet", {"image": [b"x"], "ask": ["Why?"]})
        assert [row.member for row in map(first_image, rows_at(tmp_path, columns={"questions": "ask"}))] == ["0:0"]


def first_image(row) -> RowImage:
    return row.images[0]


class TestTables:
    TALK = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))

    def table(self, folder, images, type_, *, asks=None, **options):
        talk = [[{"from": "human", "value": ask}, ANSWER] for ask in asks or ["What?"] * len(images)]
        schema = pa.schema([("images", type_), ("conversations", self.TALK)])
        return put_table(str(folder), "t.parquet", {"images": images, "conversations": talk}, schema=schema, **options)

    def test_lists_of_image_structs_are_named_by_row_group_row_and_position(self, tmp_path):
        both, path = {"bytes": b"x", "path": "x.jpg"}, {"bytes": None, "path": "p.jpg"}
        uri = self.table(tmp_path, [[both, both], [], None, [both]], pa.list_(IMAGE), row_group_size=3)
        rows = rows_at(uri, columns=CONVERSATION)
        assert [[image.member for image in row.images] for row in rows] == [["0:0:0", "0:0:1"], [], [], ["1:0:0"]]
        uri = self.table(tmp_path, [[path, both], [path], [None]], pa.list_(IMAGE))
        rows = rows_at(uri, columns=CONVERSATION)
        assert [[(image.uri.removeprefix(f"{tmp_path}/"), image.member) for image in row.images] for row in rows] == [
            [("p.jpg", ""), ("t.parquet#0", "0:0:1")],
            [("p.jpg", "")],
            [("t.parquet#2", "0:2:0")],
        ]
        uri = self.table(tmp_path, [[path], [], [path, path]], pa.list_(IMAGE))
        assert [names(row, tmp_path) for row in rows_at(uri, columns=CONVERSATION)] == [["p.jpg"], [], ["p.jpg"] * 2]

    def test_lists_without_any_null_give_all_their_images(self, tmp_path):
        """The footer says that no image lacks its bytes; how many a row has it does not say."""
        both, unnamed = {"bytes": b"x", "path": "x.jpg"}, {"bytes": b"x", "path": None}
        uri = self.table(tmp_path, [[both] * 3, [unnamed, both]], pa.list_(IMAGE))
        rows = rows_at(uri, columns=CONVERSATION)
        assert [[image.member for image in row.images] for row in rows] == [
            ["0:0:0", "0:0:1", "0:0:2"],
            ["0:1:0", "0:1:1"],
        ]

    def test_lists_of_uris_are_read(self, tmp_path):
        uri = self.table(tmp_path, [["a.jpg", "b.jpg"], []], pa.list_(pa.string()), asks=["<image><image>?", "Who?"])
        two, none = rows_at(uri, columns=CONVERSATION, image_root="/photos")
        assert [image.uri for image in two.images] == ["/photos/a.jpg", "/photos/b.jpg"]
        assert turns(two)[0] == ("user", "?", (0, 1))
        assert (none.images, turns(none)[0], none.error) == ((), ("user", "Who?", ()), None)

    @pytest.mark.parametrize(
        ("values", "type_"),
        [([b"x", None], pa.binary()), ([{"bytes": b"x", "path": None}, None], IMAGE), (["a.jpg", None], pa.string())],
    )
    def test_row_of_a_conversation_may_have_no_image(self, tmp_path, values, type_):
        with_one, without = rows_at(self.table(tmp_path, values, type_), columns=CONVERSATION)
        assert (len(with_one.images), len(without.images), without.error) == (1, 0, None)

    def test_conversations_alone_are_a_source(self, tmp_path):
        talk = [[{"role": "user", "content": "Who are you?"}]]
        schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
        source = source_at(
            put_table(str(tmp_path), "t.parquet", {"messages": talk}, schema=schema), columns=CONVERSATION
        )
        (row,) = source.rows()
        assert (source.image_column, row.images, turns(row)) == (None, (), [("user", "Who are you?", ())])

    def test_conversation_that_cannot_be_understood_is_the_rows_error(self, tmp_path):
        uri = self.table(tmp_path, [[]], pa.list_(IMAGE), asks=[None])
        (row,) = rows_at(uri, columns=CONVERSATION)
        assert f"{uri}#0: message 0 of the conversation has null" in reason(row)

    def test_columns_of_another_type_are_refused_before_anything_is_read(self, tmp_path):
        uri = put_table(str(tmp_path), "t.parquet", {"image": ["a"], "talk": ["x"], "n": [1]})
        with pytest.raises(ValueError, match="column 'talk' is string; it must be list<struct>"):
            source_at(uri, columns={"conversation": "talk"})
        with pytest.raises(ValueError, match="no column conversations or messages; set conversation_from to one of"):
            source_at(uri, columns=CONVERSATION)
        with pytest.raises(ValueError, match="column 'n' is int64; it must be string"):
            source_at(uri, columns={"original_text": "n"})


REGENERATE = """
name: again
about: Each answer of a conversation anew.
table: qa
min_images: 0
steps:
  - each: turns
    prompts: ["{question}"]
    generation: {max_new_tokens: 4}
"""


class TestStages:
    """From the file to the labels."""

    @pytest.fixture
    def work(self, tmp_path):
        for number in range(4):
            picture = four_corners(96 + 32 * number, 64)
            (tmp_path / f"{number}.png").write_bytes(encode(picture, "PNG"))
        (tmp_path / "again.yaml").write_text(REGENERATE)
        turn = {"from": "human", "value": "And now?"}
        uri = put_lines(
            tmp_path,
            {"image": "0.png", "conversations": [ASK, ANSWER, turn, ANSWER]},
            {"image": ["0.png", "1.png"], "conversations": [ASK, ANSWER]},
            {"image": ["0.png", "1.png", "2.png", "3.png"], "conversations": [ASK, ANSWER]},
            {"conversations": [turn, ANSWER]},
            {"conversations": "nonsense"},
            {"image": ["0.png", "nowhere.png"], "conversations": [ASK, ANSWER]},
            {"image": ["/etc/hostname", "0.png"], "conversations": [ASK, ANSWER]},
        )
        return resolve(job_of({"uri": uri}, tmp_path / "out", [{"name": str(tmp_path / "again.yaml")}]))

    def fetched(self, work, **options):
        stage = FetchImage(
            max_bytes=10_000,
            image_column=work.image_column,
            uri_policy=work.uri_policy,
            patience=Patience(store_s=0),
            **options,
        )
        return stage(to_columns(pending(work)))

    def tiled(self, work, block):
        with closing(TileImage(candidate_resolutions=work.candidate_resolutions, max_pixels=10**6)) as stage:
            return stage(block)

    def test_all_images_of_a_row_are_fetched_or_the_row_says_which_was_not(self, work):
        block = self.fetched(work)
        assert [len(encoded) for encoded in block["encoded"]] == [1, 2, 4, 0, 0, 0, 0]
        *good, malformed, missing, forbidden = [row.error for row in rows_of(block)]
        assert good == [None] * 4
        assert malformed.kind == ErrorKind.BAD_SAMPLE
        assert (missing.kind, missing.message.startswith("image 2 of 2: ")) == (ErrorKind.MISSING, True)
        assert (forbidden.kind, forbidden.message.startswith("image 1 of 2: ")) == (ErrorKind.FORBIDDEN, True)
        assert all(image.sha256 for row in rows_of(block) if not row.error for image in row.images)

    def test_row_of_too_many_images_is_given_up_before_any_is_fetched(self, work):
        errors = [row.error for row in rows_of(self.fetched(work, max_images=3))]
        assert errors[2].kind == ErrorKind.TOO_MANY_IMAGES
        assert "4 images, more than limits.max_images = 3" in errors[2].message

    def test_tiles_of_all_images_follow_each_other_and_more_than_two_are_not_cut_up(self, work):
        block = self.tiled(work, self.fetched(work))
        one, two, four, none = rows_of(block)[:4]
        pictures = [four_corners(96 + 32 * number, 64) for number in range(4)]
        for row, tiles, dynamic in zip((one, two, four), block[TILES_COLUMN], (True, True, False), strict=False):
            wanted = [tile_image(picture, work.candidate_resolutions, dynamic=dynamic) for picture in pictures]
            of_row = wanted[: len(row.images)]
            assert np.array_equal(tiles, np.concatenate([tiled.tiles for tiled in of_row]))
            assert [(image.tiles_wide, image.tiles_high) for image in row.images] == [tiled.grid for tiled in of_row]
            assert [image.width_px for image in row.images] == [96, 128, 160, 192][: len(row.images)]
        assert len(block[TILES_COLUMN][3]) == 0
        assert (none.error, none.images) == (None, ())

    def test_second_image_that_is_damaged_is_named(self, work, tmp_path):
        (tmp_path / "1.png").write_bytes(b"no image")
        damaged = rows_of(self.tiled(work, self.fetched(work)))[1]
        assert (damaged.error.kind, damaged.error.stage) == (ErrorKind.UNREADABLE, Stage.DECODE)
        assert damaged.error.message.startswith("image 2 of 2: ")
        assert damaged.width_px == 0

    def test_every_sample_ends_as_labels_or_in_quarantine(self, work, tmp_path):
        block = self.tiled(work, self.fetched(work))
        replica = ReplicaConfig(checkpoint="nano", engine=EngineSpec(device="cpu", dtype="float32"))
        with closing(LabelImage(replica=replica, recipes=work.recipes)) as stage:
            labelled = asyncio.run(labels_of(stage, block))
            num_tiles = stage._engine.stats().num_tiles
        good = [row for row in labelled if row.error is None]
        assert [len(row.labels) for row in good] == [2, 1, 1, 1]
        assert [row.recipe_errors for row in good] == [()] * 4
        assert num_tiles == sum(image.num_tiles for row in good for image in row.images), "each image is encoded once"
        commit(work, *labelled)
        staged = staged_tables(tmp_path / "out")
        assert [len(record["more_images"]) for record in staged["qa"]] == [0, 0, 1, 3, 0]
        four = staged["qa"][3]
        assert [image["uri"] for image in four["more_images"]] == [f"{tmp_path}/{number}.png" for number in (1, 2, 3)]
        assert [image["width_px"] for image in four["more_images"]] == [128, 160, 192]
        assert staged["qa"][4]["image_uri"] == ""
        malformed = staged["quarantine"][0]
        assert malformed["image_uri"] == f"{tmp_path}/sft.jsonl#5"
        assert malformed["message"].startswith(f"{tmp_path}/sft.jsonl, line 5: the conversation is a text")
        assert malformed["stage"] == "list"


async def labels_of(stage, block) -> list[ImageRow]:
    (labelled,) = [one async for one in stage(block)]
    return rows_of(labelled)


def staged_tables(output) -> dict[str, list[dict]]:
    """What was staged, by table, in the order of the rows."""
    tables: dict[str, list[dict]] = {}
    for table in ("qa", "quarantine"):
        folder = f"{output}/_run/staged"
        tables[table] = table_at(folder, table).to_pylist()
    return tables


class TestIdentity:
    def places(self, work) -> list[str]:
        return [row.place.rpartition("#")[2] for row in pending(work)]

    def test_samples_that_were_appended_or_changed_are_the_only_new_ones(self, tmp_path):
        samples = [{"image": "a.jpg", "ask": f"{number}?"} for number in range(5)]
        ocr = ["ocr", {"name": "qa", "questions_from": "ask"}]
        uri = put_lines(tmp_path, *samples)
        first = resolve(job_of({"uri": uri}, tmp_path / "out", ocr))
        ids = [row.sample_id for row in pending(first)]
        assert len({*ids}) == 5
        samples[2]["ask"] = "Changed?"
        put_lines(tmp_path, *samples, {"image": "a.jpg", "ask": "4?"})
        second = resolve(job_of({"uri": uri}, tmp_path / "out", ocr))
        assert second.num_new_images == 2
        assert self.places(second) == ["1", "2", "4", "5", "3", "6"], "what was in the third line is not there any more"
        assert [row.sample_id for row in pending(second)][:4] == [*ids[:2], *ids[3:]]

    def test_same_sample_twice_in_a_file_is_two_rows(self, tmp_path):
        uri = put_lines(tmp_path, {"image": "a"}, {"image": "a"})
        work = resolve(job_of({"uri": uri}, tmp_path / "out"))
        assert len({row.sample_id for row in pending(work)}) == 2

    def test_row_keeps_all_that_the_sample_said_on_its_way(self, tmp_path):
        uri = put_lines(tmp_path, {"image": "a", "conversations": [ASK, ANSWER]})
        (row,) = pending(resolve(job_of({"uri": uri, "carry": ["id"]}, tmp_path / "out")))
        row = dataclasses.replace(
            row,
            turns=(Turn(role="user", text="?", images=(0,)),),
            marks=(Mark(kind="box", points=((1.0, 2.0), (3.0, 4.0))),),
            original_text="ü",
        )
        assert rows_of(to_columns([row])) == [row]


def test_file_that_is_not_there_is_no_sample(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        rows_at(tmp_path / "nowhere.jsonl")
