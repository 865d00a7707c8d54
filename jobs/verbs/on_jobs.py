"""Verbs that take a job file, and the demo, which writes one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.verbs.options import JobFile, Overrides, SummaryAsJson


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


def run(
    job: JobFile,
    set_: Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label at most this many images of the source.")] = None,
    json: SummaryAsJson = False,
) -> None:
    """Run a job: label every image of its source that has no labels yet, and write the dataset."""
    from jobs.run import run_file

    raise typer.Exit(run_file(job, overrides=set_ or [], limit=limit, as_json=json))


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
