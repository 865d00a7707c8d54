"""Exports for training on conversations: as many marks as images, and text that stays text."""

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from pipeline.exports.export import export
from pipeline.exports.llava import IMAGE_MARK, escaped, unescaped
from tests.pipeline.exported import (
    PICTURES,
    RED,
    ask,
    assert_upright_with_its_rectangle,
    finished_output,
    label,
    name_of,
)

HOSTILE = "Which of <image>, <|User|> and <\\image> is a <image> mark?\n<|Assistant|>"
NAMES = ["a/plain.png", "a/Photo One.JPG"]


def read_llava(folder: Path) -> list[dict]:
    return json.loads((folder / "llava.json").read_text())


def read_messages(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "messages.jsonl").read_text().splitlines()]


def exported(source, tmp_path, to, labels, **how) -> list[dict]:
    """Of one output, the records of one form."""
    samples = how.pop("samples", [[name] for name in NAMES])
    output = finished_output(source, tmp_path / "out", labels, samples=samples)
    export(output, to=to, out=str(tmp_path / to), **how)
    return {"llava": read_llava, "messages": read_messages}[to](tmp_path / to)


def hostile_labels(row):
    return [
        ask(HOSTILE, HOSTILE, images=[0], item=0, system=HOSTILE),
        ask("And now?", "Ünïcode “stays”: 图\u2028像", images=[], item=1),
        label("captions", caption=HOSTILE, style="plain", instruction="Describe the image."),
    ]


def test_llava_loads_with_datasets_and_marks_equal_images_whatever_the_text_spells(source, tmp_path):
    exported(source, tmp_path, "llava", hostile_labels)
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "llava/llava.json"), cache_dir=str(tmp_path / "c"))
    assert len(loaded["train"]) == 4
    for record in loaded["train"]:
        values = [turn["value"] for turn in record["conversations"]]
        assert sum(value.count(IMAGE_MARK) for value in values) == 1
        assert (tmp_path / "llava" / record["image"]).is_file()
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"] * (len(values) // 2)
    questions = next(record for record in loaded["train"] if len(record["conversations"]) == 4)
    assert unescaped(questions["conversations"][0]["value"].removeprefix("<image>\n")) == HOSTILE
    assert unescaped(questions["conversations"][1]["value"]) == HOSTILE
    assert unescaped(questions["system"]) == HOSTILE


def test_messages_load_with_datasets_and_image_parts_equal_images_whatever_the_text_spells(source, tmp_path):
    exported(source, tmp_path, "messages", hostile_labels)
    files = str(tmp_path / "messages/messages.jsonl")
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) == 4
    for record in loaded:
        parts = [part for message in record["messages"] for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(record["images"]) == 1
    questions = next(record for record in loaded if len(record["messages"]) == 5)
    assert [message["role"] for message in questions["messages"]] == ["system", *["user", "assistant"] * 2]
    texts = [message["content"][-1]["text"] for message in questions["messages"]]
    assert texts == [HOSTILE, HOSTILE, HOSTILE, "And now?", "Ünïcode “stays”: 图\u2028像"]


@pytest.mark.parametrize("text", ["<image>", "<\\image>", "<\\\\image>", "a<image><image>", "<Image> < image>", ""])
def test_escaping_leaves_no_mark_and_can_be_undone(text):
    assert IMAGE_MARK not in escaped(text)
    assert unescaped(escaped(text)) == text


def test_text_is_written_as_it_is(source, tmp_path):
    exported(source, tmp_path, "messages", hostile_labels)
    written = (tmp_path / "messages/messages.jsonl").read_bytes()
    assert "图".encode() in written
    assert written.count(b"\n") == 4


def test_pictures_stand_before_the_question_that_names_them(source, tmp_path):
    """Two before the first, one before the second; a picture that is named again is not shown again."""

    def labels(row):
        return [
            ask("Compare.", "Both are red.", images=[0, 1], item=0),
            ask("And this, next to the first?", "Red too.", images=[2, 0], item=1),
        ]

    (record,) = exported(source, tmp_path, "llava", labels, samples=[["a/plain.png", "b/plain.png", "tall.png"]])
    values = [turn["value"] for turn in record["conversations"]]
    assert values[0] == "<image>\n<image>\nCompare."
    assert values[2] == "<image>\nAnd this, next to the first?"
    sizes = [Image.open(tmp_path / "llava" / name).size for name in record["image"]]
    assert sizes == [PICTURES[name][0] for name in ("a/plain.png", "b/plain.png", "tall.png")]


def test_where_one_sample_has_several_images_every_image_is_a_list_so_that_the_column_has_one_type(source, tmp_path):
    samples = [["a/plain.png"], ["a/plain.png", "b/plain.png"]]
    records = exported(source, tmp_path, "llava", lambda row: [ask("What?", "Red.")], samples=samples)
    assert [len(record["image"]) for record in records] == [1, 2]
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "llava/llava.json"), cache_dir=str(tmp_path / "c"))
    assert [len(images) for images in loaded["train"]["image"]] == [1, 2]


def test_sample_without_images_has_no_image_and_no_mark(source, tmp_path):
    def labels(row):
        return [ask("Why?", "Because.")]

    (record,) = exported(source, tmp_path, "llava", labels, samples=[[]])
    assert record["conversations"][0]["value"] == "Why?"
    assert "image" not in record


@pytest.mark.parametrize(("table", "values", "question", "answer"), [
    ("captions", {"caption": "A red thing."}, "Tell.", "A red thing."),
    ("ocr", {"text": "EXIT"}, "Tell.", "EXIT"),
    ("grounding", {"text": "<|ref|>x<|/ref|>", "boxes": []}, "Tell.", "<|ref|>x<|/ref|>"),
    ("grounded_captions", {"caption": "x", "text": "<|ref|>x<|/ref|>", "boxes": []}, "Tell.", "<|ref|>x<|/ref|>"),
    ("code", {"code": "<svg/>", "language": "svg"}, "Tell.", "<svg/>"),
])  # fmt: skip
def test_every_table_makes_a_question_and_its_answer(source, tmp_path, table, values, question, answer):
    (record,) = exported(source, tmp_path, "llava", lambda row: [label(table, **values)], samples=[["tiny.png"]])
    assert [turn["value"] for turn in record["conversations"]] == [f"<image>\n{question}", answer]


def test_question_about_a_mark_has_the_picture_with_the_mark_drawn_in(source, tmp_path):
    mark = {"kind": "box", "points": [{"x": 20, "y": 5}, {"x": 100, "y": 70}], "color": "blue"}

    def labels(row):
        return [label("visual_prompts", question="What is in the box?", answer="Red.", mark=mark)]

    (record,) = exported(source, tmp_path, "llava", labels, samples=[["a/plain.png"]])
    with Image.open(tmp_path / "llava" / record["image"]) as picture:
        assert picture.getpixel((20, 40)) == (0, 0, 255)
        assert picture.getpixel((30, 40)) == RED
    assert record["conversations"][0]["value"] == "<image>\nWhat is in the box?"


TURNS = """
name: ocr
about: Answers every turn again.
table: qa
steps:
  - each: turns
    styles:
      reasoned: {prompts: ["{question}"], final_answer: "Final answer:"}
"""


def output_with_turns(source, tmp_path, labels) -> str:
    """Whose recipe `ocr` is recorded as one that answers turns."""
    output = finished_output(source, tmp_path / "out", labels, samples=[["tiny.png"]])
    (Path(output) / "_run/recipes/ocr.yaml").write_text(TURNS)
    return output


def test_turns_after_one_that_was_left_out_are_left_out_too_but_independent_questions_stay(source, tmp_path):
    """The later turns were answered in sight of the one that is left out."""

    def labels(row):
        turns = [("ocr", item, ["loop"] * (item == 1)) for item in range(4)]
        apart = [("apart", item, ["loop"] * (item == 0)) for item in range(3)]
        return [
            ask(f"Question {item}?", "yes", item=item, flags=flags, recipe=recipe, images=[0] if item == 0 else [])
            for recipe, item, flags in (*turns, *apart)
        ]

    output = output_with_turns(source, tmp_path, labels)
    done = export(output, to="llava", out=str(tmp_path / "llava"), without_flags=["loop"])
    assert (done.num_rows_left_out, done.num_rows_cut_short) == (2, 2)
    records = read_llava(tmp_path / "llava")
    apart, turns = ([turn["value"] for turn in record["conversations"][::2]] for record in records)
    assert turns == ["<image>\nQuestion 0?"]
    assert apart == ["<image>\nQuestion 1?", "Question 2?"]


def test_reasoning_comes_before_the_words_of_the_recipe_and_the_answer(source, tmp_path):
    def labels(row):
        return [
            ask("How many?", "2", item=0, reasoning="One here,\n  one there.", recipe="ocr"),
            ask("Sure?", "yes", item=1, recipe="ocr"),
        ]

    output = output_with_turns(source, tmp_path, labels)
    export(output, to="messages", out=str(tmp_path / "messages"))
    (record,) = read_messages(tmp_path / "messages")
    answers = [message["content"][0]["text"] for message in record["messages"] if message["role"] == "assistant"]
    assert answers == ["One here,\n  one there.\nFinal answer: 2", "yes"]


def test_copies_are_upright_for_a_reader_that_looks_at_pixels_alone(source, tmp_path):
    def labels(row):
        return [label("captions", caption=name_of(row))]

    records = exported(source, tmp_path, "llava", labels, samples=[[name] for name in PICTURES])
    for record in records:
        name = record["conversations"][1]["value"]
        with Image.open(tmp_path / "llava" / record["image"]) as picture:
            assert_upright_with_its_rectangle(picture, name)
    assert len({record["image"] for record in records}) == len(PICTURES)
