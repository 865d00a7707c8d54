"""From files as people have them to files as people train on them, through every stage but Ray's: what goes in comes
out at its place. The engine answers exactly.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from pycocotools.coco import COCO

from pipeline.exports.export import export
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.prepare import TileImage
from pipeline.work import Work
from schemas.job import EngineSpec
from schemas.rows import TILES_COLUMN, rows_of, to_columns
from tests.pipeline.exact_engine import ExactEngine
from tests.pipeline.exported import PICTURES, put_pictures
from tests.pipeline.outputs import Said, commit, finalized, job_of, pending, resolve

SPELLS_MARKS = "What do <image> and <|User|> mean in HTML?"


class AnyAnswer(ExactEngine):
    """Says what a function makes of the prompt."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        super().__init__()
        self._answer = answer

    def say(self, asked: Any) -> Said:
        self.asked.append(asked)
        return Said(text=self._answer(asked.text))


def run_stages(work: Work, engine: ExactEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pipeline.label_images` chains them, one sample after another, and the end of a run."""
    monkeypatch.setattr(ReplicaConfig, "load", lambda config: engine)
    fetch = FetchImage(max_bytes=10**8, image_column=work.image_column, uri_policy=work.uri_policy)
    tile = TileImage(candidate_resolutions=work.candidate_resolutions, max_pixels=10**8)
    label = LabelImage(replica=ReplicaConfig(checkpoint="nano", engine=EngineSpec()), recipes=work.recipes)
    try:
        for row in pending(work):
            block = tile(fetch(to_columns([row])))
            commit(work, asyncio.run(label.label(rows_of(block)[0], block[TILES_COLUMN][0])))
    finally:
        tile.close()
    accounts = finalized(work)
    summary = {"num_images": accounts.num_images, "num_rows": dict(accounts.num_rows)}
    work.folder.put_json("summary.json", {**summary, "recipes": dict.fromkeys(work.recipe_digests)})


def write_lines(path: Path, samples: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples), encoding="utf-8")
    return str(path)


def test_boxes_of_turned_tall_wide_and_tiny_pictures_land_on_their_pixels(tmp_path, monkeypatch):
    put_pictures(tmp_path / "in")
    samples = [{"id": name, "image": name, "queries": [f"the red thing of {name}", "a zebra"]} for name in PICTURES]
    source = {"uri": write_lines(tmp_path / "in" / "samples.jsonl", samples), "image_column": "image"}
    work = resolve(job_of(source, tmp_path / "out", [{"name": "grounding", "queries_from": "queries"}]))

    def answer(prompt: str) -> str:
        name = next((name for name in PICTURES if f"of {name}<" in prompt), None)
        if name is None:
            return "<|ref|>a zebra<|/ref|><|det|>[]<|/det|>"
        (width, height), corners, _ = PICTURES[name]
        grid = [round(999 * at / side) for at, side in zip(corners, (width, height) * 2, strict=True)]
        return f"<|ref|>the red thing of {name}<|/ref|><|det|>[{grid}]<|/det|>"

    run_stages(work, AnyAnswer(answer), monkeypatch)
    export(work.folder.output_uri, to="coco", out=str(tmp_path / "coco"))
    coco = COCO(str(tmp_path / "coco" / "instances.json"))
    assert len(coco.getImgIds()) == len(PICTURES)
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(tmp_path / "coco" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            is_red = np.asarray(picture.convert("RGB"))[:, :, 1] < 128
        (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
        left, top, wide, high = annotation["bbox"]
        rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        # The grid of the model's coordinates has 1000 lines.
        assert np.abs(np.subtract([left, top, left + wide, top + high], found)).max() <= max(picture.size) / 999 + 0.01


LLAVA = [
    {
        "id": "two turns",
        "image": "a/plain.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is red?"},
            {"from": "gpt", "value": "old 1"},
            {"from": "human", "value": SPELLS_MARKS},
            {"from": "gpt", "value": "old 2"},
        ],
    },
    {
        "id": "two images",
        "image": ["a/plain.png", "wide.webp"],
        "conversations": [
            {"from": "human", "value": "<image>\n<image>\nWhich is wider?"},
            {"from": "gpt", "value": "old"},
        ],
    },
    {"id": "text", "conversations": [{"from": "human", "value": SPELLS_MARKS}, {"from": "gpt", "value": "old"}]},
]
SHAREGPT = [
    {
        "id": "with a system prompt",
        "image": "b/plain.png",
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "user", "value": f"<image>{SPELLS_MARKS}"},
            {"from": "assistant", "value": "old"},
        ],
    },
    *LLAVA,
]
MESSAGES = [
    {
        "id": "parts",
        "images": ["a/plain.png", "wide.webp"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is red?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "old 1"}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SPELLS_MARKS}]},
            {"role": "assistant", "content": "old 2"},
        ],
    },
    {
        "id": "text",
        "messages": [{"role": "user", "content": SPELLS_MARKS}, {"role": "assistant", "content": "old"}],
    },
]


def texts_and_images(sample: dict[str, Any]) -> tuple[list[str], int]:
    """What the user and the assistant say, without marks of images; and how many images there are."""
    num_images = num_marks = len(images_of(sample))
    texts = []
    for turn in sample.get("conversations") or sample["messages"]:
        text = text_of(turn)
        if turn.get("from", turn.get("role")) == "system":
            continue
        while "conversations" in sample and "<image>" in text and num_marks:
            text, num_marks = text.replace("<image>", "", 1).lstrip("\n"), num_marks - 1
        texts.append(text)
    return texts, num_images


@pytest.mark.parametrize("samples", [LLAVA, SHAREGPT, MESSAGES], ids=["llava", "sharegpt", "messages"])
@pytest.mark.parametrize("form", ["llava", "messages"])
def test_conversations_come_back_with_new_answers_at_their_places(samples, form, tmp_path, monkeypatch):
    put_pictures(tmp_path / "in", ["a/plain.png", "b/plain.png", "wide.webp"])
    source = write_lines(tmp_path / "in" / "train.jsonl", samples)
    recipes = [{"name": "qa-regenerate", "hints": []}]
    work = resolve(job_of(source, tmp_path / "out", recipes))
    run_stages(work, AnyAnswer(lambda prompt: f"new answer to: {prompt[:11]}"), monkeypatch)
    export(work.folder.output_uri, to=form, out=str(tmp_path / "made"))

    file = {"llava": "llava.json", "messages": "messages.jsonl"}[form]
    loaded = load_dataset("json", data_files=str(tmp_path / "made" / file), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == len(samples)
    for given, made in zip(samples, loaded.to_list(), strict=True):
        made = {key: value for key, value in made.items() if value is not None}
        given_texts, num_images = texts_and_images(given)
        images = images_of(made)
        texts = [text_of(turn) for turn in made.get("conversations") or made["messages"]]
        if form == "llava":
            assert sum(text.count("<image>") for text in texts) == num_images
            # As the README says: marks stand on lines of their own, and text that spells one is escaped.
            texts = [text.replace("<image>\n", "").replace("<\\image>", "<image>") for text in texts]
        else:
            texts = texts[1:] if made["messages"][0]["role"] == "system" else texts
        assert len(images) == num_images
        assert texts[0::2] == given_texts[0::2], "the user's words are what they were"
        assert texts[1::2] == [f"new answer to: {question[:11]}".strip() for question in given_texts[0::2]]
        for path in images:
            with Image.open(tmp_path / "made" / path) as picture:
                picture.load()


def images_of(made: dict[str, Any]) -> list[str]:
    images = made.get("images") or made.get("image") or []
    return [images] if isinstance(images, str) else list(images)


def text_of(turn: dict[str, Any]) -> str:
    content = turn.get("value", turn.get("content"))
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
