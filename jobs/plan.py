"""`labelmill plan`: what a run of a job would do, take and cost, printed."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.exit_codes import EXIT_DONE
from jobs.job_file import opened_job

Record = Mapping[str, Any]


def plan_file(
    path: Path,
    *,
    overrides: Sequence[str],
    max_headers: int,
    gpus: int | None,
    gpu_memory_gb: float | None,
    nodes: int | None,
    cpus: int | None,
    as_json: bool,
) -> int:
    """Returns 0; bad input raises. gpus, cpus: of each node."""
    job = opened_job(path, overrides)
    if gpus is None and (gpu_memory_gb, nodes, cpus) != (None, None, None):
        raise typer.BadParameter("--gpu-memory-gb, --nodes and --cpus describe a cluster: give --gpus with them")
    if gpus is not None and gpu_memory_gb is None:
        raise typer.BadParameter("--gpus needs --gpu-memory-gb, the memory of one of them")
    from pipeline.plan import plan  # not at the top: a typo in the job file is told before torch is imported
    from pipeline.plan_cluster import described, this_machine

    if gpus is None or gpu_memory_gb is None:
        cluster = this_machine()
    else:
        cluster = described(gpus=gpus, gpu_memory_gb=gpu_memory_gb, nodes=nodes or 1, cpus=cpus)
    found = plan(job, cluster, max_headers=max_headers, say=lambda text: print(text, file=sys.stderr, flush=True))
    print_plan(found)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    return EXIT_DONE


def print_plan(found: Record) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{found['name']}: {found['source']} -> {found['output']}, with {found['checkpoint']}")
    for line in (*_image_lines(found["images"]), *_sample_lines(found["sample"])):
        console.print(line)
    console.print(_recipe_table(found["recipes"]))
    for line in _measured_lines(found):
        console.print(line)
    for name, facts in found["budget"].items():
        console.print(_budget_line(name, facts))
    for line in (*_memory_lines(found["memory"]), *_cluster_lines(found["cluster"])):
        console.print(line)


def _image_lines(images: Record) -> list[str]:
    lines = [
        f"images: {images['num_images']:,}, of which {images['num_new_images']:,} are new to the output; "
        f"{images['num_to_label']:,} to label"
    ]
    if images["num_ignored_files"]:
        lines.append(f"ignored: {images['num_ignored_files']:,} files of the source that are no images")
    return lines


def _sample_lines(sample: Record) -> list[str]:
    if not sample["num_images"]:
        return []
    pictures = max(1, sum(sample["grids"].values()))
    grids = ", ".join(f"{grid} {count / pictures:.0%}" for grid, count in sample["grids"].items())
    return [
        f"headers: of {sample['num_images']:,} images, drawn with seed {sample['seed']}, in {sample['took_s']:.1f} s",
        f"  grids (tiles wide x high): {grids or 'none'}",
        f"  vision tiles: {sample['tiles_per_image']:.2f} an image, {sample['num_tiles']:,} in all",
        f"  quarantined by their headers: {_shares(sample['quarantined'], sample['num_images'])}",
    ]


def _shares(kinds: Record, num_images: int) -> str:
    return ", ".join(f"{count / num_images:.1%} {kind}" for kind, count in kinds.items()) or "none"


def _recipe_table(recipes: Record) -> Table:
    table = Table(title="tokens", title_justify="left")
    table.add_column("recipe")
    for column in ("labels an image", "prompt a label", "output a label", "output in all", "from"):
        table.add_column(column, justify="right")
    for name, facts in recipes.items():
        table.add_row(
            name,
            _number(facts.get("labels_per_image"), ".2f"),
            _number(facts.get("prompt_tokens"), ".0f"),
            _number(facts.get("output_tokens"), ".1f"),
            _number(facts.get("num_output_tokens_expected"), ","),
            facts.get("origin", "not known"),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _measured_lines(found: Record) -> list[str]:
    measured, forecast = found["measured"], found["forecast"]
    if not found["images"]["num_to_label"]:
        return ["nothing is left to label"]
    if measured is None:
        return [
            "speed: not measured, because this machine has no GPU and that cluster has: run plan on one of its machines"
        ]
    threads = f"{measured['num_threads']} threads" if measured["num_threads"] else "a GPU"
    lines = [
        f"measured: {measured['num_images']} images labelled in {measured['labeling_s']:.1f} s by one replica with "
        f"{threads}, tiled in {measured['tiling_s']:.1f} s beside it",
        f"  quarantined: {_shares(measured['quarantined'], measured['num_images'])}",
        f"images/s: {_range(forecast['images_per_s'], '.2f')}",
        f"time: {_duration(forecast['run_s'])}; in it {_range(forecast['startup_s'], '.0f')} s for starting and ending",
    ]
    if forecast["gpu_hours"] is not None:
        lines.append(f"GPU hours: {_range(forecast['gpu_hours'], '.2f')}")
    return [
        *lines,
        "  ranges hold for 9 of 10 draws of the measured images, on a machine as busy as it was just now",
        f"output: about {_bytes(forecast['output_bytes'])} of tables, and as much again of records of the run",
    ]


def _budget_line(name: str, facts: Record) -> str:
    verdicts = {None: "whether that is enough is not known", True: "enough", False: "not enough: a later run goes on"}
    expected = "" if facts["expected"] is None else f" of {facts['expected']:,.6g} expected"
    return f"budget: {name} {facts['limit']:,.6g}{expected}: {verdicts[facts['fits']]}"


def _range(values: Record, form: str) -> str:
    return f"{values['expected']:{form}} ({values['low']:{form}} to {values['high']:{form}})"


def _duration(seconds: Record) -> str:
    units = ((3600, "h"), (60, "min"), (0, "s"))
    unit, name = next((max(1, unit), name) for unit, name in units if seconds["expected"] >= unit)
    low, expected, high = (seconds[key] / unit for key in ("low", "expected", "high"))
    return f"{expected:.1f} {name} ({low:.1f} to {high:.1f})"


def _memory_lines(memory: Record) -> list[str]:
    weights, dense, experts = (_bytes(memory[f"{part}_bytes"]) for part in ("weight", "dense", "expert"))
    lines = [
        f"memory of a rank: {weights} of weights ({dense} that every rank holds, {experts} of its experts), "
        f"at most {_bytes(memory['activation_bytes'])} of activations, "
        f"{memory['kv_bytes_per_token']:,} bytes of cache a token"
    ]
    if "cache_tokens" in memory:
        lines.append(
            f"  of {_bytes(memory['device_bytes'])} a GPU, {memory['usable_fraction']:.0%} of them usable, "
            f"{_bytes(max(0, memory['cache_bytes']))} are left for the cache: {memory['cache_tokens']:,} tokens, "
            f"{memory['sequences_at_once']} sequences of {memory['tokens_per_sequence']:,} at once"
        )
    return [*lines, f"  {memory['note']}"]


def _cluster_lines(cluster: Record) -> list[str]:
    replica = (
        f"{cluster['expert_ranks']} GPUs" if cluster["label_num_gpus"] else f"{cluster['label_num_threads']} threads"
    )
    return [
        f"on {cluster['cluster']} ({cluster['num_nodes']} nodes, {cluster['num_cpus']:g} CPUs, {cluster['num_gpus']:g} "
        f"GPUs): {cluster['num_label_actors']} replicas of {replica}, {cluster['num_tile_actors']} tile actors"
    ]


def _bytes(count: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"
