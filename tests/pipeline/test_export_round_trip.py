"""SFT files -> an output -> an export: every question comes out as it went in, with its images, and a new answer."""

import json
from pathlib import Path

import pytest

from pipeline.exports.export import export
from pipeline.exports.llava import unescaped
from pipeline.source import CONVERSATION_AUTO
from tests.pipeline.exported import ask, finished_output, put_pictures
from tests.pipeline.tables import rows_at

HOSTILE = "Is <|User|> an <image>, an <|image|> or an <\\image>?"
TURNS = "name: turns\nabout: Turns.\ntable: qa\nsteps: [{each: turns, prompts: ['{question}']}]\n"


def new_answers(row):
    """To each turn of the conversation, in the place of its old answer."""
    questions = [(turn, old) for turn, old in zip(row.turns, row.turns[1:], strict=False) if turn.role == "user"]
    system = next((turn.text for turn in row.turns if turn.role == "system"), None)
    return [
        ask(
            turn.text,
            f"not {old.text}",
            item=item,
            recipe="turns",
            images=turn.images,
            system=None if item else system,
            original_answer=old.text,
        )
        for item, (turn, old) in enumerate(questions)
    ]


def output_of(folder: Path, samples) -> str:
    put_pictures(folder / "in", ["a/plain.png", "tall.png"])
    (folder / "in/sft.json").write_text(json.dumps(samples))
    (folder / "turns.yaml").write_text(TURNS)
    return finished_output(folder / "in/sft.json", folder / "out", new_answers, recipes=(str(folder / "turns.yaml"),))


def said(role, *parts):
    return {"role": role, "content": [{"type": "image"} if part is None else _text(part) for part in parts]}


def _text(text):
    return {"type": "text", "text": text}


LLAVA = [
    {"image": "a/plain.png", "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<image>\nWhat is <|User|>?"}, {"from": "gpt", "value": "red"},
        {"from": "human", "value": "And now?"}, {"from": "gpt", "value": "blue"},
    ]},
    {"image": ["a/plain.png", "tall.png"], "conversations": [
        {"from": "human", "value": "<image>\n<image>\nWhich is taller?"}, {"from": "gpt", "value": "the first"},
    ]},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "because"}]},
]  # fmt: skip

MESSAGES = [
    {"images": ["a/plain.png"], "messages": [
        said("system", HOSTILE), said("user", None, HOSTILE), said("assistant", HOSTILE),
        said("user", "And now?"), said("assistant", "blue"),
    ]},
    {"images": ["a/plain.png", "tall.png"], "messages": [
        said("user", None, "The first"), said("assistant", "x"),
        said("user", None, "The second"), said("assistant", "y"),
    ]},
]  # fmt: skip


def test_llava_sample_comes_out_as_it_went_in(tmp_path):
    export(output_of(tmp_path, LLAVA), to="llava", out=str(tmp_path / "llava"))
    records = json.loads((tmp_path / "llava/llava.json").read_text())
    for before, after in zip(LLAVA, records, strict=True):
        turns = [turn for turn in before["conversations"] if turn["from"] != "system"]
        humans = [turn["value"] for turn in turns if turn["from"] == "human"]
        assert [turn["value"] for turn in after["conversations"][::2]] == humans
        answers = [f"not {turn['value']}" for turn in turns if turn["from"] == "gpt"]
        assert [turn["value"] for turn in after["conversations"][1::2]] == answers
    assert [len(record.get("image", [])) for record in records] == [1, 2, 0]
    assert [record.get("system") for record in records] == ["Be brief.", None, None]


@pytest.mark.parametrize("to", ["llava", "messages"])
def test_text_that_spells_marks_is_text_all_the_way(tmp_path, to):
    output = output_of(tmp_path, MESSAGES)
    export(output, to=to, out=str(tmp_path / to))
    if to == "llava":
        record = json.loads((tmp_path / "llava/llava.json").read_text())[0]
        values = [turn["value"] for turn in record["conversations"]]
        assert [value.count("<image>") for value in values] == [1, 0, 0, 0]
        assert unescaped(values[0].removeprefix("<image>\n")) == HOSTILE
        assert (unescaped(values[1]), unescaped(record["system"])) == (f"not {HOSTILE}", HOSTILE)
    else:
        record = json.loads((tmp_path / "messages/messages.jsonl").read_text().splitlines()[0])
        assert [message["role"] for message in record["messages"]] == ["system", *["user", "assistant"] * 2]
        assert record["messages"][1]["content"] == [{"type": "image"}, _text(HOSTILE)]


def test_exported_messages_are_a_source_again_with_the_same_turns_and_images(tmp_path):
    export(output_of(tmp_path, MESSAGES), to="messages", out=str(tmp_path / "messages"))
    rows = rows_at(tmp_path / "messages/messages.jsonl", columns={"conversation": CONVERSATION_AUTO})
    before = rows_at(tmp_path / "in/sft.json", columns={"conversation": CONVERSATION_AUTO})
    for old, new in zip(before, rows, strict=True):
        assert [(turn.role, turn.images) for turn in new.turns] == [(turn.role, turn.images) for turn in old.turns]
        kept = [(turn.role, turn.text) for turn in old.turns if turn.role != "assistant"]
        assert [(turn.role, turn.text) for turn in new.turns if turn.role != "assistant"] == kept
        assert all(Path(image.uri).is_file() for image in new.images)
    assert {len(row.images) for row in rows} == {1, 2}
