"""Settings -> the bench's report, printed as a table and written as JSON."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from model.bench.run import BenchSettings, run_bench

_COLUMNS = ("median", "lowest", "highest", "roofline")


def print_report(settings: BenchSettings) -> None:
    """Runs the bench; what it is doing goes to the standard error. Raises as `run_bench` does."""
    report = run_bench(settings, say=lambda line: print(f"{line} ...", file=sys.stderr))
    print(*lines_of(report), sep="\n")
    if settings.profile_folder is not None:
        print(f"traces and tables: {settings.profile_folder}")
    if settings.json_path is not None:
        settings.json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def lines_of(report: Mapping[str, Any]) -> list[str]:
    return [*_setting_lines(report), _engine_line(report["engine"]), "", *_table(report["figures"])]


def _setting_lines(report: Mapping[str, Any]) -> Iterator[str]:
    settings, model, machine = report["settings"], report["model"], report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items() if version)
    yield (
        f"{settings['checkpoint']}: {model['num_parameters'] / 1e6:,.1f} M parameters, "
        f"{model['num_activated_language_parameters'] / 1e6:,.1f} M of the decoder active per token, "
        f"{model['weight_bytes'] / 1e9:.2f} GB in {settings['dtype']}"
    )
    yield f"{settings['device_name']} ({settings['device']}), threads: {settings['num_threads']}, {versions}"
    yield (
        f"batch {settings['batch']}, {settings['output_tokens']} output tokens, {settings['num_images']} images in "
        f"flight, cache of {settings['cache_tokens']:,} tokens, {settings['repeats']} repeats"
    )
    yield (
        f"roofline: {machine['copy_bytes_per_s'] / 1e9:,.1f} GB/s copied, "
        f"{machine['matmul_flops_per_s'] / 1e12:,.3f} TFLOP/s multiplied in {settings['dtype']}"
    )
    if machine["peak_memory_bytes"] is not None:
        yield f"peak device memory: {machine['peak_memory_bytes'] / 1e9:.2f} GB"


def _engine_line(stats: Mapping[str, Any]) -> str:
    """What the engine says of the whole bench, warming up included."""
    imbalance = max(stats["expert_imbalance"], default=1.0)
    return (
        f"engine: {stats['batch_occupancy']:.0%} of its places in use, {stats['cache_use']:.0%} of its cache, "
        f"{stats['prefix_hit_rate']:.0%} of prompt tokens found there, {stats['num_preemptions']} preemptions, "
        f"busiest expert of a layer {imbalance:.1f} times the mean"
    )


def _table(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = {name: name.replace("_per_s", "/s").replace("_", " ") for name in figures}
    width = max(map(len, names.values()))
    yield f"{'':{width}}  " + "".join(f"{column:>12}" for column in _COLUMNS) + "     reached"
    for name, figure in figures.items():
        values = "".join(f"{_number(figure[column]):>12}" for column in _COLUMNS)
        yield f"{names[name]:{width}}  {values}{figure['fraction_of_roofline']:>12.1%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
