"""Scores a checkpoint on unseen scenes, through the engine: `python -m model.nano.evaluate --seed N --count K`.

Prints exact figures per task and how evenly the experts were used. Shapes: E experts, L layers.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig, ImageView
from model.moe import Router
from model.nano.lessons import Turn, caption_turn, make_turns, ocr_turn, qa_turn
from model.nano.scene_language import referring_phrases
from model.nano.scenes import Scene, render_scene, scene_seed
from model.nano.scores import Scores
from model.nano.vocabulary import MAX_COORDINATE

TASKS = ("caption", "ocr", "qa", "grounding")
MAX_NEW_TOKENS = 192
VIEWS_AT_ONCE = 8
PHRASES_PER_SCENE = 4

_BOX = re.compile(r"\[(\d{1,3}), (\d{1,3}), (\d{1,3}), (\d{1,3})\]")


def evaluate(
    engine: Engine, scenes: Sequence[Scene], *, tasks: Sequence[str] = TASKS, with_local_tiles: bool = True
) -> Scores:
    """Scores the answers to the built-in recipes' prompts about every scene, and to all of its questions.

    Args:
        with_local_tiles: False shows the model the global view alone.
    """
    scores = Scores()

    async def run() -> None:
        room = asyncio.Semaphore(VIEWS_AT_ONCE)
        await asyncio.gather(*(_judge(engine, scene, tasks, with_local_tiles, scores, room) for scene in scenes))

    asyncio.run(run())
    return scores


async def _judge(
    engine: Engine,
    scene: Scene,
    tasks: Sequence[str],
    with_local_tiles: bool,
    scores: Scores,
    room: asyncio.Semaphore,
) -> None:
    async with room:
        (image,) = engine.processor.tile([scene.image])
        async with engine.open([image if with_local_tiles else image.untiled()]) as view:
            turns = [turn for turn in turns_of(scene) if turn.task in tasks]
            answers = await asyncio.gather(*(_answer(view, turn) for turn in turns))
    for turn, answer in zip(turns, answers, strict=True):
        score(scores, scene, turn, answer)


def turns_of(scene: Scene) -> list[Turn]:
    """A caption, a transcription, all questions of the scene, and phrases."""
    phrases = make_turns(scene, num_questions=0, num_phrases=PHRASES_PER_SCENE)
    return [
        caption_turn(scene, with_hint=False),
        ocr_turn(scene),
        *(qa_turn(one.question, one.answer) for one in scene.questions),
        *(turn for turn in phrases if turn.task == "grounding"),
    ]


async def _answer(view: ImageView, turn: Turn) -> str:
    completion = await view.generate(turn.prompt, max_new_tokens=MAX_NEW_TOKENS)
    return completion.text.strip()


def score(scores: Scores, scene: Scene, turn: Turn, answer: str) -> None:
    if turn.task == "caption":
        scores.add_caption(answer, truth=turn.answer, objects=[(one.color, one.shape) for one in scene.objects])
    elif turn.task == "ocr":
        text = scene.layout.text
        scores.add_text(answer, truth=turn.answer, print_size=text.print_size if text else "none")
    elif turn.task == "qa":
        scores.add_answer(answer, truth=turn.answer)
    else:
        truth = dict(referring_phrases(scene))[phrase_of(turn)]
        sign = [scene.layout.sign_box] if scene.layout.sign_box else []
        others = [box for box in (*(one.box for one in scene.objects), *sign) if box not in truth]
        boxes = boxes_in(answer, *scene.image.size)
        scores.add_boxes(boxes, truth=truth, others=others, num_objects=len(scene.objects))


def phrase_of(turn: Turn) -> str:
    return "".join(part["text"] for part in turn.prompt if not isinstance(part, str))


def boxes_in(answer: str, width_px: int, height_px: int) -> list[tuple[float, float, float, float]]:
    """Boxes of an answer in pixels; as the grounding recipe reads them, where they are well formed."""
    boxes = []
    for match in _BOX.finditer(answer):
        x1, y1, x2, y2 = (int(value) / MAX_COORDINATE for value in match.groups())
        boxes.append((x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px))
    return boxes


@contextmanager
def expert_loads(model: DeepseekVL2) -> Iterator[list[Tensor]]:
    """Counts the tokens that each expert of each MoE layer gets in the meantime: float32 [E] per layer."""
    routers = [module for module in model.modules() if isinstance(module, Router)]
    loads = [torch.zeros(router.config.n_routed_experts or 0) for router in routers]

    def count(load_E: Tensor, ids_TK: Tensor) -> None:
        load_E += torch.bincount(ids_TK.flatten().cpu(), minlength=len(load_E))

    handles = [
        router.register_forward_hook(lambda _module, _inputs, output, load_E=load_E: count(load_E, output[0]))
        for router, load_E in zip(routers, loads, strict=True)
    ]
    try:
        yield loads
    finally:
        for handle in handles:
            handle.remove()


def load_lines(loads: Sequence[Tensor]) -> list[str]:
    """One line per layer: each expert's share of the mean load."""
    return [
        f"experts of MoE layer {index}: " + " ".join(f"{share:.2f}" for share in (load_E / load_E.mean()).tolist())
        for index, load_E in enumerate(loads)
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model.nano.evaluate", description="Scores unseen scenes.")
    parser.add_argument("--seed", type=int, default=1000, help="of the scenes; 1 and 2 were trained on")
    parser.add_argument("--count", type=int, default=200, help="number of scenes")
    parser.add_argument("--checkpoint", default="nano", help="nano, a folder, an s3:// prefix or a hub id")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--untiled", action="store_true", help="withhold the local tiles")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.count < 1:
        parser.error(f"--seed {options.seed} --count {options.count}: a seed of 0 or more, and at least one scene")
    try:
        engine = Engine.load(options.checkpoint, device=options.device, config=EngineConfig(max_num_sequences=48))
    except ValueError as error:
        sys.exit(f"error: {error}")
    assert isinstance(engine, Engine), "one rank"
    scenes = [render_scene(scene_seed(options.seed, index)) for index in range(options.count)]
    with engine, expert_loads(engine.model) as loads:
        scores = evaluate(engine, scenes, with_local_tiles=not options.untiled)
    print("\n".join([f"{options.count} scenes of seed {options.seed}", *scores.lines(), *load_lines(loads)]))


if __name__ == "__main__":
    main()
