"""Settings -> a report: every figure beside what this machine could reach."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from model import checkpoint
from model.bench import roofline
from model.bench.machine import describe, measure_rates
from model.bench.measure import EngineBench, PhaseTimes, Rate
from model.bench.memory import bytes_outside_allocator, cuda_cache_tokens
from model.bench.profiling import profile_phases
from model.bench.roofline import ImageWork, MachineRates
from model.bench.settings import BenchSettings
from model.bench.synthetic import byte_processor, random_model
from model.bench.workload import GRIDS, PROMPTS, image_work
from model.checkpoint_files import local_folder
from model.config import ModelConfig
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig
from model.prompt import Processor
from model.variants import VARIANTS, variant_config

_RECIPES = {"1_recipe": 1, "4_recipes": 4}


@dataclass(frozen=True, kw_only=True)
class _Figure:
    rate: Rate
    bound: Callable[[MachineRates], float]
    """The same rate, of an engine that does nothing but what it must."""

    def beside(self, rates: MachineRates) -> dict[str, float]:
        bound = self.bound(rates)
        return {**asdict(self.rate), "roofline": bound, "fraction_of_roofline": self.rate.median / bound}


def run_bench(settings: BenchSettings, *, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Builds the model, measures it, and returns what `--json` writes; rates are per second.

    `say` gets a line before each part. Raises ValueError for a checkpoint that cannot be loaded, for more output tokens
    than the model's context holds, and where the memory allowed is too small.
    """
    device = torch.device(settings.device)
    say(f"building {settings.checkpoint}")
    model, processor = _build(settings)
    works = {name: image_work(processor, grid, PROMPTS, settings.output_tokens) for name, grid in GRIDS.items()}
    _check_context(model.config, works, settings)
    say(f"measuring {settings.device} itself")
    rates = measure_rates(device, settings.torch_dtype)
    cache_tokens = _cache_tokens(model, processor, settings, works)
    config = EngineConfig(max_num_sequences=settings.batch, cache_tokens=cache_tokens)
    with Engine(model, processor, config=config) as engine:
        bench = EngineBench(
            engine, batch=settings.batch, output_tokens=settings.output_tokens, repeats=settings.repeats
        )
        figures = _measure(bench, settings, works, say)
        stats = engine.stats()
    peak_memory_bytes = _peak_bytes(device)
    say(f"measuring {settings.device} once more")  # others may have kept it busy before
    rates = rates.best(measure_rates(device, settings.torch_dtype))
    return {
        "settings": {
            **settings.as_json(),
            **describe(device),
            "num_images": bench.num_images,
            "prefill_chunk_tokens": config.prefill_chunk_tokens,
            "cache_tokens": cache_tokens,
        },
        "model": _sizes(model),
        "machine": {**asdict(rates), "peak_memory_bytes": peak_memory_bytes},
        "engine": stats.as_dict(),
        "figures": {name: figure.beside(rates) for name, figure in figures.items()},
    }


def _build(settings: BenchSettings) -> tuple[DeepseekVL2, Processor]:
    if settings.checkpoint in VARIANTS:
        config = variant_config(settings.checkpoint)
        model = random_model(config, device=settings.device, dtype=settings.torch_dtype)
        return model, byte_processor(config)
    folder = local_folder(settings.checkpoint)
    model = checkpoint.load(folder, device=settings.device, dtype=settings.torch_dtype)
    return model, Processor.from_checkpoint(folder)


def _check_context(config: ModelConfig, works: Mapping[str, ImageWork], settings: BenchSettings) -> None:
    prompt_tokens, context = max(map(_longest_prompt, works.values())), config.language.max_position_embeddings
    if prompt_tokens + settings.output_tokens > context:
        raise ValueError(
            f"{prompt_tokens} tokens of a prompt and {settings.output_tokens} of output are more than the model's "
            f"context of {context}: ask for fewer --output-tokens"
        )


def _cache_tokens(
    model: DeepseekVL2, processor: Processor, settings: BenchSettings, works: Mapping[str, ImageWork]
) -> int:
    prompt_tokens = max(map(_longest_prompt, works.values()))
    if model.device.type == "cpu":
        return settings.batch * (prompt_tokens + settings.output_tokens)
    image_tokens = max(processor.config.num_image_tokens(grid) for grid in GRIDS.values())
    return cuda_cache_tokens(model, processor, settings, prompt_tokens=prompt_tokens, image_tokens=image_tokens)


def _measure(
    bench: EngineBench, settings: BenchSettings, works: Mapping[str, ImageWork], say: Callable[[str], None]
) -> dict[str, _Figure]:
    config = bench.engine.model.config
    say("warming up")
    bench.warm_up([_longest_prompt(work) for work in works.values()], PROMPTS)
    say("measuring vision")
    vision = _Figure(rate=bench.vision_tiles_per_s(), bound=lambda rates: roofline.vision_tiles_per_s(config, rates))
    figures, phases = {"vision_tiles_per_s": vision}, {}
    for name, work in works.items():
        say(f"measuring prefill and decode of {name}")
        phases[name] = bench.phases(_longest_prompt(work))
        figures |= _phase_figures(name, phases[name], config, settings)
    for name, work in works.items():
        for recipes, num_prompts in _RECIPES.items():
            say(f"measuring images/s of {name}, {recipes}")
            rate = bench.images_per_s(GRIDS[name], PROMPTS[:num_prompts])
            asked = replace(work, num_own_tokens=work.num_own_tokens[:num_prompts])
            figures[f"{name}_{recipes}_images_per_s"] = _images_figure(rate, asked, config, settings)
    if settings.profile_folder is not None:
        say("profiling")
        longest_of = {name: _longest_prompt(work) for name, work in works.items()}
        name = min(longest_of, key=lambda name: longest_of[name])
        profile_phases(
            bench,
            settings.profile_folder,
            num_prompt_tokens=longest_of[name],
            num_decode_tokens=max(longest_of.values()) + settings.output_tokens - longest_of[name],
            prefill_s=phases[name].prefill_s,
        )
    return figures


def _phase_figures(name: str, phases: PhaseTimes, config: ModelConfig, settings: BenchSettings) -> dict[str, _Figure]:
    language, batch, bytes_per_value = config.language, settings.batch, settings.torch_dtype.itemsize
    prompt_tokens = round(statistics.mean(phases.num_prompt_tokens) / batch)
    context = prompt_tokens + settings.output_tokens / 2
    return {
        f"{name}_prefill_tokens_per_s": _Figure(
            rate=phases.prefill_rate(),
            bound=lambda rates: roofline.prefill_tokens_per_s(language, prompt_tokens, rates),
        ),
        f"{name}_decode_tokens_per_s": _Figure(
            rate=phases.decode_rate(),
            bound=lambda rates: roofline.decode_tokens_per_s(language, batch, context, rates, bytes_per_value),
        ),
    }


def _images_figure(rate: Rate, work: ImageWork, config: ModelConfig, settings: BenchSettings) -> _Figure:
    bytes_per_value = settings.torch_dtype.itemsize
    return _Figure(
        rate=rate, bound=lambda rates: 1 / roofline.image_s(config, work, settings.batch, rates, bytes_per_value)
    )


def _longest_prompt(work: ImageWork) -> int:
    return work.num_shared_tokens + max(work.num_own_tokens)


def _sizes(model: DeepseekVL2) -> dict[str, int]:
    language = model.config.language
    parameters = list(model.parameters())
    head = language.hidden_size * language.vocab_size
    return {
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "num_activated_language_parameters": roofline.decoder_flops_per_token(language) // 2 + head,
        "weight_bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    }


def _peak_bytes(device: torch.device) -> int | None:
    """What the process held at most on the device, with what lies there outside of torch's allocator; None on a CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.max_memory_reserved(device) + bytes_outside_allocator(device)
