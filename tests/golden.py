"""Checkpoints and outputs of the reference implementation, kept in tests/golden_data."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.prompt import Processor

FOLDER = Path(__file__).parent / "golden_data"
CHECKPOINTS = ("tiny-like", "small-like", "base-like", "extra70-like", "extra84-like")


def checkpoint_folder(name: str) -> Path:
    return FOLDER / "checkpoints" / name


@functools.cache
def conversations(checkpoint: str) -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / "processor" / f"{checkpoint}.json").read_text())


def images_of(messages: list[dict[str, Any]]) -> list[Image.Image]:
    names = [name for message in messages for name in message.get("images", [])]
    return [Image.open(FOLDER / name).convert("RGB") for name in names]


@functools.cache
def processor(checkpoint: str) -> Processor:
    return Processor.from_checkpoint(checkpoint_folder(checkpoint))


@functools.cache
def prompt(checkpoint: str, case: str):
    messages = conversations(checkpoint)[case]["messages"]
    return processor(checkpoint).encode(messages, images_of(messages))


def outputs(checkpoint: str, case: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / "model" / checkpoint / f"{case}.npz") as arrays:
        return dict(arrays)


def model_cases() -> list[tuple[str, str]]:
    """(checkpoint, case) of every golden of a single conversation."""
    return [
        (checkpoint, path.stem)
        for checkpoint in CHECKPOINTS
        for path in sorted((FOLDER / "model" / checkpoint).glob("*.npz"))
        if path.stem != "vision" and not path.stem.startswith("batch__")
    ]


def batch_cases() -> list[tuple[str, str]]:
    return [
        (checkpoint, path.stem)
        for checkpoint in CHECKPOINTS
        for path in sorted((FOLDER / "model" / checkpoint).glob("batch__*.npz"))
    ]
