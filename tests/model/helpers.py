"""What several tests of the model share: loaded golden checkpoints, engines over them, and copies to damage."""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import checkpoint as checkpoints
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig, RankedEngine, Request
from tests import golden


@functools.cache
def load(name: str) -> DeepseekVL2:
    return checkpoints.load(golden.checkpoint_folder(name))


def engine(name: str, **config: int) -> Engine:
    return Engine(load(name), golden.processor(name), config=EngineConfig(**config))


def image(name: str) -> Image.Image:
    return Image.open(golden.FOLDER / "images" / f"{name}.png").convert("RGB")


def ask(content: Any, *, images: tuple = (), **params: Any) -> Request:
    """A request of one user message."""
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]
    return Request(messages=messages, images=images, **params)


def golden_tensors(name: str) -> dict[str, Tensor]:
    """Every tensor of a golden checkpoint, as stored."""
    shards = sorted(golden.checkpoint_folder(name).glob("*.safetensors"))
    return {key: tensor for shard in shards for key, tensor in load_file(shard).items()}


def copy_checkpoint(name: str, folder: Path) -> Path:
    """A copy to be changed, as published: three shards and their index."""
    return Path(shutil.copytree(golden.checkpoint_folder(name), folder))


def copy_configuration(name: str, folder: Path) -> Path:
    """A copy without weights."""
    ignore = shutil.ignore_patterns("*.safetensors*")
    return Path(shutil.copytree(golden.checkpoint_folder(name), folder, ignore=ignore))


def write_single_file(name: str, folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A copy that holds these tensors in one file."""
    copy_configuration(name, folder)
    save_file(dict(tensors), folder / checkpoints.SINGLE_FILE)
    return folder


def edit_json(path: Path, change: Mapping[str, Any]) -> None:
    """Sets keys, given with dots for what lies inside; the value `...` removes the key."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        *sections, last = key.split(".")
        place = functools.reduce(lambda section, name: section[name], sections, content)
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def ranked(name: str, num_ranks: int, **config: int) -> RankedEngine:
    engine = Engine.load(golden.checkpoint_folder(name), config=EngineConfig(expert_ranks=num_ranks, **config))
    assert isinstance(engine, RankedEngine)
    return engine
