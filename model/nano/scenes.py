"""A seed -> a labelled scene of nano's world: a picture, and the truth for every task, deterministically.

`python -m model.nano.scenes --seed N --count K --out DIR` writes pictures and their truth to a folder. Knows nothing of
models, prompts or training.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from model.nano.scene_drawing import draw_scene, object_map
from model.nano.scene_language import describe, parse_caption, referring_phrases
from model.nano.scene_layout import WORLD, World, plan_scene
from model.nano.scene_questions import ask
from model.nano.scene_records import COLORS, SHAPES, SIZES, WORDS, Box, Question, Scene, SceneObject
from model.nano.scene_text import glyph_boxes

__all__ = [
    "COLORS",
    "SHAPES",
    "SIZES",
    "WORDS",
    "WORLD",
    "Box",
    "Question",
    "Scene",
    "SceneObject",
    "World",
    "ask",
    "describe",
    "glyph_boxes",
    "object_map",
    "parse_caption",
    "referring_phrases",
    "render_scene",
    "scene_seed",
    "truth",
    "write_scenes",
]

TRUTH_FILE = "truth.jsonl"
_FORMATS: tuple[tuple[str, dict[str, Any]], ...] = (("png", {}), ("jpg", {"quality": 92}))
SEEDS_PER_SET = 2**32


def render_scene(seed: int, world: World = WORLD) -> Scene:
    """The scene of a seed: the same in every process, given the same world and the same version of Pillow, whose
    drawing decides on pixels and on the width of letters.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"the seed of a scene must be 0 or more, got {seed}")
    rng = random.Random(seed)
    layout = plan_scene(rng, world)
    image, objects = draw_scene(layout)
    return Scene(
        seed=seed,
        image=image,
        layout=layout,
        objects=objects,
        caption=describe(objects, layout),
        questions=ask(rng, objects, layout),
    )


def scene_seed(seed: int, index: int) -> int:
    """The seed of one scene of a set: sets of different seeds share no scene, so one can train and the other test."""
    return seed * SEEDS_PER_SET + index


def truth(scene: Scene, file: str) -> dict[str, Any]:
    """The line of truth.jsonl about a scene: boxes in pixels, x2 and y2 exclusive; `text` is "" where there is none."""
    return {
        "file": file,
        "objects": [
            {"color": one.color, "shape": one.shape, "size": one.size, "box": list(one.box)} for one in scene.objects
        ],
        "text": scene.text,
        "questions": [{"question": one.question, "answer": one.answer} for one in scene.questions],
        "caption": scene.caption,
    }


def write_scenes(seed: int, count: int, folder: Path) -> Path:
    """Writes scene-<seed>-<index>.png and .jpg by turns, and beside them truth.jsonl, whose path it returns.

    What the folder holds under those names is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / TRUTH_FILE, "w", encoding="utf-8") as lines:
        for index in range(count):
            scene = render_scene(scene_seed(seed, index))
            suffix, options = _FORMATS[index % len(_FORMATS)]
            name = f"scene-{seed}-{index}.{suffix}"
            scene.image.save(folder / name, **options)
            lines.write(json.dumps(truth(scene, name)) + "\n")
    return folder / TRUTH_FILE


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model.nano.scenes", description="Writes labelled scenes.")
    parser.add_argument("--seed", type=_whole, required=True, help="0 or more; every seed gives other scenes")
    parser.add_argument("--count", type=_whole, required=True, help="number of scenes")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for the pictures and {TRUTH_FILE}")
    options = parser.parse_args(arguments)
    path = write_scenes(options.seed, options.count, options.out)
    print(f"{options.count} scenes, their truth in {path}")


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
