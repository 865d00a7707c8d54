"""Verbs that take a checkpoint, and those about recipes."""

from pathlib import Path
from typing import Annotated

import typer


def label(
    images: Annotated[list[str], typer.Argument(help="Files, or s3:// URIs.", metavar="IMAGE...")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="A recipe (labelmill recipes lists them) or a file of your own; may be repeated."),
    ] = None,
    question: Annotated[list[str] | None, typer.Option(help="A question for qa; may be repeated.")] = None,
    query: Annotated[list[str] | None, typer.Option(help="What grounding shall find; may be repeated.")] = None,
    checkpoint: Annotated[str, typer.Option(help="nano, a folder, an s3:// prefix or a hub id.")] = "nano",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=value", help="A setting as in a job file, e.g. engine.dtype=float32."),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Draw the boxes over the image; of several images OUT-1.png and so on."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the labels as JSON, an image a line.")] = False,
) -> None:
    """Label images, each by itself, and print the results; without --recipe, captions."""
    from jobs.label import label_files

    code = label_files(
        images,
        recipes=recipe or [],
        questions=question or [],
        queries=query or [],
        checkpoint=checkpoint,
        overrides=set_ or [],
        draw=draw,
        as_json=json,
    )
    raise typer.Exit(code)


def bench(
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "--model",
            help="tiny, small, 27b or bench-150m with random weights; or nano, a folder, an s3:// prefix or a hub id. "
            "By default small on a GPU, nano on a CPU.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. By default a GPU if there is one.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16. By default bfloat16 on a GPU, float32 on a CPU.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Sequences at once; twice as many images are in flight. By default 256, or 4.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(help="Of every prompt. By default 200 on a GPU, 32 on a CPU.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Medians are taken over so many runs. By default 3.")] = None,
    max_memory_gb: Annotated[
        float | None, typer.Option(help="Make the KV cache so small that the process stays below this on the GPU.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write figures and settings to this file.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write a trace of prefill and one of decode into this folder.")
    ] = None,
) -> None:
    """Measure the engine on this machine, beside what the machine could reach at best."""
    from jobs.bench import bench_engine

    options = {
        "checkpoint": checkpoint,
        "device": device,
        "dtype": dtype,
        "batch": batch,
        "output_tokens": output_tokens,
        "repeats": repeats,
        "max_memory_gb": max_memory_gb,
        "json_path": json,
        "profile_folder": profile,
    }
    raise typer.Exit(bench_engine(options))


def app_(
    checkpoint: Annotated[str, typer.Option(help="nano, a folder, an s3:// prefix or a hub id.")] = "nano",
    output: Annotated[str | None, typer.Option(help="The output of a job, to look through.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=value", help="A setting as in a job file, e.g. limits.max_bytes=1000000."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
) -> None:
    """Open a page on this machine to try a checkpoint on your own images, and to look through an output."""
    from jobs.app.serve import serve_app

    raise typer.Exit(serve_app(checkpoint=checkpoint, output=output, overrides=set_ or [], host=host, port=port))


recipes = typer.Typer(help="List the built-in recipes, or show one.", invoke_without_command=True)


@recipes.callback()
def list_recipes(context: typer.Context) -> None:
    from jobs.recipes import list_recipes

    if context.invoked_subcommand is None:
        raise typer.Exit(list_recipes())


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="A built-in recipe, or the path of a recipe file.")],
) -> None:
    """Print a recipe's file, checked: a start for one of your own."""
    from jobs.recipes import show_recipe

    raise typer.Exit(show_recipe(name))
