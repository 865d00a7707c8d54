"""The `labelmill` command: one verb per file, and the one place where errors become a line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or job file, 3 done but too much quarantined, 4 a budget
is spent and images are pending, 130 interrupted and resumable.
"""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from jobs.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE

app = typer.Typer(
    name="labelmill",
    help="Turns image collections into training data: captions, OCR text, answers and boxes, in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


JobFile = Annotated[Path, typer.Argument(help="The job file.", metavar="JOB.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=value", help="Override a value of the job file; may be repeated."),
]
SummaryAsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on the last line.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the dataset; replaced if an earlier demo made it.")] = Path(
        "labelmill-demo"
    ),
    images: Annotated[Path | None, typer.Option(help="Label the images of this folder instead of drawn ones.")] = None,
    scenes: Annotated[
        int | None, typer.Option(min=1, help="Draw so many scenes, ask all questions about them, and print scores.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of those scenes; nano was trained on 1 and 2.")] = 5000,
    json: SummaryAsJson = False,
) -> None:
    """Label a few dozen images end to end: from an S3 store on this machine, through Ray, to Parquet."""
    from jobs.demo import run_demo

    if images is not None and scenes is not None:
        raise typer.BadParameter("give --images or --scenes, not both")
    raise typer.Exit(run_demo(out=out, images=images, num_scenes=scenes, seed=seed, as_json=json))


@app.command()
def run(
    job: JobFile,
    set_: Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label at most this many images of the source.")] = None,
    json: SummaryAsJson = False,
) -> None:
    """Run a job: label every image of its source that has no labels yet, and write the dataset."""
    from jobs.run import run_file

    raise typer.Exit(run_file(job, overrides=set_ or [], limit=limit, as_json=json))


@app.command()
def submit(
    job: JobFile,
    address: Annotated[
        str, typer.Option(help="URL of the cluster's dashboard, http://HOST:8265.", envvar="RAY_API_SERVER_ADDRESS")
    ],
    set_: Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label at most this many images of the source.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job to its end; else end when it is sent.")] = True,
) -> None:
    """Run a job on a Ray cluster elsewhere: follow what it prints, and end with its exit code."""
    from jobs.submit import submit_file

    # Not typer.Exit: an interrupted submit has told what goes on, and that is not what an interrupted run tells.
    sys.exit(submit_file(job, overrides=set_ or [], limit=limit, address=address, wait=wait))


@app.command()
def manifest(
    job: JobFile,
    set_: Overrides = None,
    schedule: Annotated[str | None, typer.Option(help='Run it again and again, such as "0 2 * * *".')] = None,
    cronjob: Annotated[
        bool, typer.Option("--cronjob", help="With --schedule: Kubernetes' own CronJob, not KubeRay's RayCronJob.")
    ] = False,
    time_zone: Annotated[str | None, typer.Option(help="Of the schedule, such as Europe/Berlin.")] = None,
    image: Annotated[str | None, typer.Option(help="Of all pods. By default labelmill:VERSION-cuda.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Of the machines that label.")] = 1,
    gpu_nodes: Annotated[int, typer.Option(min=1, help="Machines that label.")] = 1,
    gpu_memory_gb: Annotated[float, typer.Option(min=0.1, help="Of one GPU.")] = 80.0,
    tile_nodes: Annotated[int, typer.Option(min=1, help="Machines that fetch, decode and tile.")] = 1,
    tile_cpus: Annotated[int | None, typer.Option(min=2, help="Of each of these. By default 8 for each GPU.")] = None,
    spot: Annotated[bool, typer.Option(help="GPUs that may be taken back.")] = True,
    namespace: Annotated[str | None, typer.Option(help="Of Kubernetes. By default that of kubectl.")] = None,
    service_account: Annotated[str, typer.Option(help="Whose identity reads and writes the store.")] = "labelmill",
    secret: Annotated[str | None, typer.Option(help="Of Kubernetes, with keys for a store without accounts.")] = None,
    queue: Annotated[str | None, typer.Option(help="A LocalQueue of Kueue's.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="Of a run that fails; each makes a new cluster.")] = 2,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of all pods, nothing secret; may be repeated.")
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM:/FOLDER", help="Mount a PersistentVolumeClaim in all pods; may be repeated."),
    ] = None,
) -> None:
    """Print what runs a job on Kubernetes with KubeRay: once, or on a schedule."""
    from jobs.manifest import print_manifest

    code = print_manifest(
        job,
        overrides=set_ or [],
        cron_job=cronjob,
        env=env or [],
        volumes=volume or [],
        image=image,
        gpus={"num_nodes": gpu_nodes, "gpus_per_node": gpus_per_node, "gpu_memory_gb": gpu_memory_gb},
        tiling={"tile_nodes": tile_nodes, "tile_cpus_per_node": tile_cpus},
        schedule=schedule,
        time_zone=time_zone,
        namespace=namespace,
        service_account=service_account,
        secret=secret,
        queue=queue,
        spot_gpus=spot,
        num_retries=retries,
    )
    raise typer.Exit(code)


@app.command()
def plan(
    job: JobFile,
    set_: Overrides = None,
    sample: Annotated[int, typer.Option(min=1, help="Read the sizes of this many images, drawn at random.")] = 500,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Plan for a cluster with so many GPUs in each node, not this machine.")
    ] = None,
    gpu_memory_gb: Annotated[float | None, typer.Option(min=0.1, help="Of one GPU of that cluster.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Of that cluster. By default 1.")] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Of each node of that cluster. By default as many as this machine has.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on the last line.")] = False,
) -> None:
    """Tell what a run would do, take and cost: looks at the source, labels a few of its images, writes nothing."""
    from jobs.plan import plan_file

    code = plan_file(
        job,
        overrides=set_ or [],
        max_headers=sample,
        gpus=gpus,
        gpu_memory_gb=gpu_memory_gb,
        nodes=nodes,
        cpus=cpus,
        as_json=json,
    )
    raise typer.Exit(code)


@app.command()
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


@app.command()
def verify(
    output: Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")],
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on the last line.")] = False,
) -> None:
    """Check that every input of a finished job is accounted for exactly once per recipe."""
    from jobs.verify import verify_output

    raise typer.Exit(verify_output(output, as_json=json))


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run until it ends; then end with its exit code.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON on the last line.")] = False,
) -> None:
    """Show how far a running, dead or finished job is, from its files alone."""
    from jobs.status import print_status
    from jobs.watch import watch_run

    code = watch_run(output) if watch else 0
    print_status(output, as_json=json)
    raise typer.Exit(code)


@app.command()
def retry(
    output: Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only images that failed with this kind of error, e.g. too_many_pixels; may be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="a.b=value", help="Override a value of the job, e.g. limits.max_bytes=1000000000."
        ),
    ] = None,
    json: SummaryAsJson = False,
) -> None:
    """Label the images in quarantine once more, with the output's own job; the source is not listed again."""
    from jobs.retry import retry_output

    raise typer.Exit(retry_output(output, kinds=kind or [], overrides=set_ or [], as_json=json))


@app.command()
def export(
    output: Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")],
    to: Annotated[
        Literal["llava", "messages", "coco", "webdataset", "parquet-with-images"], typer.Option(help="The form.")
    ],
    out: Annotated[str | None, typer.Option(help="Folder or s3:// prefix; by default OUTPUT/exports/FORM.")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table; may be repeated. By default all that fit the form.")
    ] = None,
    without_flags: Annotated[
        list[str] | None,
        typer.Option(help="Leave out rows with this flag, or one of a,b,c; may be repeated.", metavar="FLAG"),
    ] = None,
    images: Annotated[
        Literal["copy", "none"],
        typer.Option(help="Copy the images, upright; or name them where they are."),
    ] = "copy",
    json: SummaryAsJson = False,
) -> None:
    """Write a finished job's labels and images in a form that training code reads."""
    from jobs.export import export_output

    code = export_output(
        output,
        to=to,
        out=out,
        tables=table or [],
        without_flags=[flag.strip() for given in without_flags or [] for flag in given.split(",") if flag.strip()],
        copy_images=images == "copy",
        as_json=json,
    )
    raise typer.Exit(code)


@app.command()
def report(
    output: Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")],
    out: Annotated[str | None, typer.Option(help="The HTML file; by default OUTPUT/_run/report.html.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Show at most this many samples in the gallery.")] = 120,
) -> None:
    """Write one HTML file that shows what a running or finished job did: counts, plots, labels on their images."""
    from jobs.report import report_output

    raise typer.Exit(report_output(output, out=out, max_images=images))


@app.command()
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


@app.command(name="app")
def app_(
    checkpoint: Annotated[str, typer.Option(help="nano, a folder, an s3:// prefix or a hub id.")] = "nano",
    output: Annotated[str | None, typer.Option(help="The output of a job, to look through.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
) -> None:
    """Open a page on this machine to try a checkpoint on your own images, and to look through an output."""
    from jobs.app.serve import serve_app

    raise typer.Exit(serve_app(checkpoint=checkpoint, output=output, host=host, port=port))


recipes = typer.Typer(help="List the built-in recipes, or show one.", invoke_without_command=True)
app.add_typer(recipes, name="recipes")


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


def main() -> None:
    """Entry point of the console script."""
    from schemas.job import JobError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except JobError as error:
        _complain(*(str(problem) for problem in error.problems))
        code = EXIT_USAGE
    except typer.TyperException as error:
        if message := error.format_message():  # without one, the help was asked for by giving no command
            _complain(f"{message} (labelmill --help lists the commands, COMMAND --help the options)")
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except (ValueError, RuntimeError, OSError) as error:
        _complain(" ".join(str(error).split()) or type(error).__name__)
        code = EXIT_FAILED
    if code == EXIT_INTERRUPTED:  # typer, too, turns Ctrl-C into this code, without a word
        _complain("interrupted; what was committed is kept: run the same command again to go on")
    sys.exit(code)


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"labelmill: {line}", file=sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """A SIGTERM ends a run as Ctrl-C does: unwinding closes the cluster."""
    raise KeyboardInterrupt
