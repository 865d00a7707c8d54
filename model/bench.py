"""A checkpoint on this machine -> vision tiles/s, prefill and decode tokens/s, and images/s of the engine.

Run `python -m model.bench --help`. Needs neither Ray nor a network; medians over repeats are printed with hardware,
shapes, dtype and versions, because a rate without them says nothing.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from model import checkpoint
from model.checkpoint_files import local_folder
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Completion, Engine, EngineConfig, Request
from model.prompt import Processor
from model.tiling import TiledImage

_PROMPT = "<image>\nDescribe the image in detail."


def main() -> None:
    arguments = _parse()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if device == "cuda" else "float32"))
    folder = local_folder(arguments.checkpoint)
    model = checkpoint.load(folder, device=device, dtype=dtype)
    processor = Processor.from_checkpoint(folder)
    image = _noise_image(processor, arguments.tiles_wide, arguments.tiles_high)
    prompt = processor.encode(_messages(), [image])
    config = EngineConfig(max_num_sequences=arguments.batch)
    with Engine(model, processor, config=config) as engine:
        results = {
            "vision_tiles_per_s": _rate(arguments.repeats, lambda: _encode(model, image)),
            "prefill_tokens_per_s": _rate(arguments.repeats, lambda: _prefill(engine, image, arguments.batch)),
            "images_per_s": _rate(
                arguments.repeats, lambda: len(_run(engine, image, arguments.batch, arguments.output_tokens))
            ),
        }
        results["decode_tokens_per_s"] = statistics.median(
            _decode_rate(engine, image, arguments.batch, arguments.output_tokens) for _ in range(arguments.repeats)
        )
    setting = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "checkpoint": arguments.checkpoint,
        "dtype": str(dtype).removeprefix("torch."),
        "batch": arguments.batch,
        "grid": list(image.grid),
        "prompt_tokens": len(prompt),
        "output_tokens": arguments.output_tokens,
        "repeats": arguments.repeats,
    }
    for name, value in (setting | {name: round(rate, 2) for name, rate in results.items()}).items():
        print(f"{name:>22}  {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"setting": setting, "results": results}, indent=1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default="nano", help="nano, a folder, an s3:// prefix or a hub id")
    parser.add_argument("--device", help="cpu or cuda; by default a GPU where there is one")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="by default bfloat16 on a GPU")
    parser.add_argument("--batch", type=int, default=16, help="images, and sequences at once")
    parser.add_argument("--tiles-wide", type=int, default=2)
    parser.add_argument("--tiles-high", type=int, default=1)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def _noise_image(processor: Processor, tiles_wide: int, tiles_high: int) -> TiledImage:
    size = processor.config.candidate_resolutions[0][0]
    shape = (1 + tiles_wide * tiles_high, size, size, 3)
    return TiledImage(
        tiles=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), grid=(tiles_wide, tiles_high)
    )


def _messages() -> list[dict[str, str]]:
    return [{"role": "user", "content": _PROMPT}, {"role": "assistant", "content": ""}]


def _encode(model: DeepseekVL2, image: TiledImage) -> int:
    with torch.inference_mode():
        model.image_embeddings(image.tiles).sum().item()  # the sum waits for the device
    return len(image.tiles)


def _run(engine: Engine, image: TiledImage, num_images: int, num_tokens: int) -> list[Completion]:
    request = Request(messages=_messages(), images=[image], max_new_tokens=num_tokens)
    return engine.generate([request] * num_images)


def _prefill(engine: Engine, image: TiledImage, num_images: int) -> int:
    """Returns the prompt tokens; one output token each is part of it."""
    return sum(completion.num_prompt_tokens for completion in _run(engine, image, num_images, 1))


def _decode_rate(engine: Engine, image: TiledImage, num_images: int, num_tokens: int) -> float:
    """Output tokens after each first one, over the time of a whole run less that of one that stops at the first."""
    start = time.perf_counter()
    _run(engine, image, num_images, 1)
    first = time.perf_counter()
    completions = _run(engine, image, num_images, num_tokens)
    decode_s = (time.perf_counter() - first) - (first - start)
    return sum(completion.num_output_tokens - 1 for completion in completions) / max(1e-9, decode_s)


def _rate(repeats: int, work: Callable[[], int]) -> float:
    """Median of units per second, after one run to warm up."""
    work()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        units = work()
        rates.append(units / (time.perf_counter() - start))
    return statistics.median(rates)


if __name__ == "__main__":
    main()
