"""Images labelled per second: our tiling and engine, many images in flight, against the reference, one after another.

Run `python -m tests.benchmarks.against_reference --help`. Both load the same checkpoint of random weights (float32),
on the same CPUs; first shows that both give the same tokens for every image.
"""

import argparse
import asyncio
import functools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from model.engine import Completion, Engine, EngineConfig
from model.step_layout import StepLayout
from model.tiling import TiledImage, tile_image
from pipeline.decode import decode_image
from tests.benchmarks.agreement import require_agreement
from tests.benchmarks.comparison import compare, machine, print_setting, take_turns, use_cpus, write_json
from tests.benchmarks.photographs import MIXED_SIZES, photographs
from tests.benchmarks.reference_checkpoint import CheckpointSize, write_checkpoint
from tests.benchmarks.reference_process import ReferenceProcess, add_reference_arguments, images_in, write_images

OURS, THEIRS = "labelmill", "reference, image by image"
_TEXT = "Describe the image in detail."
_MAX_PIXELS = 200_000_000


def main() -> None:
    arguments = _parse()
    use_cpus(arguments.threads)
    torch.set_num_threads(arguments.threads)
    size = CheckpointSize(language_layers=arguments.language_layers, vision_layers=arguments.vision_layers)
    with tempfile.TemporaryDirectory() as images_folder, tempfile.TemporaryDirectory() as checkpoint:
        if arguments.images:
            paths = images_in(arguments.images, arguments.num_images)
        else:
            files = photographs(arguments.num_images, MIXED_SIZES, seed=arguments.seed)
            paths = write_images(Path(images_folder), files)
        counts = write_checkpoint(Path(checkpoint), size, seed=arguments.seed)
        with (
            ReferenceProcess(folder=arguments.reference, python=arguments.python) as reference,
            Engine.load(checkpoint, config=EngineConfig(max_num_sequences=arguments.in_flight)) as engine,
        ):
            loaded = reference.ask("load", checkpoint=checkpoint, num_threads=arguments.threads, with_model=True)
            setting = (
                machine(arguments.threads)
                | counts
                | {
                    "torch": torch.__version__,
                    "reference": ", ".join(f"{name} {version}" for name, version in loaded["versions"].items()),
                    "images": len(paths),
                    "grids": " ".join(
                        f"{wide}x{high}" for wide, high in sorted({_tiled(engine, p).grid for p in paths})
                    ),
                    "images in flight": arguments.in_flight,
                }
            )
            print_setting(setting)
            report = {"setting": setting, "agreement": _require_agreement(engine, reference, paths)}
            sides = Sides(engine=engine, reference=reference, paths=paths, in_flight=arguments.in_flight)
            for num_tokens in arguments.output_tokens:
                report[f"{num_tokens} tokens"] = sides.measure(num_tokens, arguments.repeats)
    write_json(arguments.json, report)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add_reference_arguments(parser)
    parser.add_argument("--num-images", type=int, default=16)
    parser.add_argument("--output-tokens", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--in-flight", type=int, default=16, help="images our side works on at once")
    parser.add_argument("--threads", type=int, default=1, help="CPUs each side uses, tiling included")
    parser.add_argument("--language-layers", type=int, default=CheckpointSize.language_layers)
    parser.add_argument("--vision-layers", type=int, default=CheckpointSize.vision_layers)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


class Sides:
    """Both implementations before the same images."""

    def __init__(self, *, engine: Engine, reference: ReferenceProcess, paths: Sequence[str], in_flight: int) -> None:
        self.engine, self.reference, self.paths, self.in_flight = engine, reference, list(paths), in_flight
        self.clock = EngineClock(engine)
        self.parts: dict[str, list[dict[str, float]]] = {}

    def measure(self, num_tokens: int, repeats: int) -> dict[str, Any]:
        print(f"{num_tokens} output tokens:")
        self.parts = {OURS: [], THEIRS: []}
        sides = {OURS: functools.partial(self._ours, num_tokens), THEIRS: functools.partial(self._theirs, num_tokens)}
        result = compare("images/s", take_turns(sides, repeats), ours=OURS)
        for name, turns in self.parts.items():
            means = {part: statistics.fmean(turn[part] for turn in turns) for part in turns[0]}
            print(f"  {name}, s per image:", ", ".join(f"{part} {seconds:.3f}" for part, seconds in means.items()))
        return result | {"s_per_image": self.parts}

    def _ours(self, num_tokens: int) -> float:
        self.clock.seconds.clear()
        start = time.perf_counter()
        asyncio.run(label(self.engine, self.paths, num_tokens, self.in_flight))
        return self._rate(OURS, time.perf_counter() - start, self.clock.seconds)

    def _theirs(self, num_tokens: int) -> float:
        answer = self.reference.ask("generate", images=self.paths, text=_TEXT, num_tokens=num_tokens)
        return self._rate(THEIRS, answer["elapsed_s"], answer["parts"])

    def _rate(self, side: str, elapsed_s: float, parts: Mapping[str, float]) -> float:
        """Images per second; keeps where the time went. Tiling beside the engine is in none of our parts."""
        spent = {**parts, "other": elapsed_s - sum(parts.values())}
        self.parts[side].append({part: seconds / len(self.paths) for part, seconds in spent.items()})
        return len(self.paths) / elapsed_s


class EngineClock:
    """Seconds inside the parts of our model; the engine runs them in one thread.

    A step of the decoder takes prompts and answers together: one with a prompt in it counts as prefill, although it
    decodes for other sequences as well.
    """

    def __init__(self, engine: Engine) -> None:
        self.seconds: Counter[str] = Counter()
        self._start = 0.0
        for module in (engine.model.vision, engine.model.projector, engine.model.language):
            module.register_forward_pre_hook(self._before)
            module.register_forward_hook(self._after)

    def _before(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self._start = time.perf_counter()

    def _after(self, module: torch.nn.Module, arguments: tuple[Any, ...], output: object) -> None:
        layout = arguments[1] if len(arguments) > 1 else None
        part = "vision"
        if isinstance(layout, StepLayout):
            part = "prefill" if layout.prefill else "decode"
        self.seconds[part] += time.perf_counter() - self._start


async def label(engine: Engine, paths: Sequence[str], num_tokens: int, in_flight: int) -> list[Completion]:
    """Files -> completions: decoded and tiled in a thread beside the engine's, at most `in_flight` images at a time."""
    places = asyncio.Semaphore(in_flight)

    async def one(path: str) -> Completion:
        async with places:
            tiled = await asyncio.to_thread(_tiled, engine, path)
            async with engine.open([tiled]) as view:
                return await view.generate(_TEXT, max_new_tokens=num_tokens, ignore_eos=True)

    return await asyncio.gather(*(one(path) for path in paths))


def _tiled(engine: Engine, path: str) -> TiledImage:
    """As the tiling stage of the pipeline does it."""
    decoded = decode_image(Path(path).read_bytes(), max_pixels=_MAX_PIXELS, min_decoded_fraction=1.0)
    return tile_image(decoded.image, engine.processor.config.candidate_resolutions)


def _require_agreement(engine: Engine, reference: ReferenceProcess, paths: Sequence[str]) -> dict[str, Any]:
    """On one image of each grid."""
    by_grid = {_tiled(engine, path).grid: path for path in reversed(paths)}
    chosen = list(by_grid.values())
    num_tokens = 16
    ours = asyncio.run(label(engine, chosen, num_tokens, len(chosen)))
    theirs = reference.ask("generate", images=chosen, text=_TEXT, num_tokens=num_tokens)["outputs"]

    def logits_of(ids: Sequence[int]) -> torch.Tensor:
        place, *output = ids
        return torch.tensor([reference.ask("logits", image=chosen[place], text=_TEXT, output=output)])

    prompts = [[place] for place in range(len(chosen))]
    return require_agreement(prompts, [one.token_ids for one in ours], theirs, logits_of=logits_of, tolerance=1e-3)


if __name__ == "__main__":
    main()
