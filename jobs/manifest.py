"""`labelmill manifest`: a job file -> the Kubernetes documents that run it, as YAML on stdout."""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import typer
import yaml

from jobs.exit_codes import EXIT_DONE
from jobs.job_file import opened_in_its_folder
from jobs.kubernetes.ray_cluster import CACHE_FOLDER
from jobs.kubernetes.run_script import JOB_FOLDER, SCRIPT_FOLDER
from jobs.kubernetes.settings import ManifestSettings
from jobs.submit import run_command, stop_wait_s
from jobs.working_directory import check_locations, named_files
from schemas import __version__

_CREDENTIAL = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|ACCESS_KEY|API_?KEY|PRIVATE", re.IGNORECASE)
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_CRON = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|\S+( +\S+){4}")

_FOLDERS_OF_ITS_OWN = (CACHE_FOLDER, JOB_FOLDER, SCRIPT_FOLDER)


def print_manifest(
    path: Path,
    *,
    overrides: Sequence[str],
    cron_job: bool,
    env: Sequence[str],
    volumes: Sequence[str],
    image: str | None,
    gpus: Mapping[str, Any],
    tiling: Mapping[str, Any],
    **settings: Any,
) -> int:
    """
    Args:
        cron_job: a CronJob of Kubernetes' own, instead of KubeRay's RayCronJob.
        env: `NAME=VALUE`.
        volumes: `CLAIM:/FOLDER`.
        gpus, tiling: as `pipeline.node_sizes` takes them.
        settings: of `ManifestSettings`.

    Returns 0; bad input raises, before anything is printed.
    """
    schedule, queue = settings["schedule"], settings["queue"]
    _check_schedule(schedule, cron_job=cron_job, queue=queue)
    chosen = ManifestSettings(
        image=image or f"labelmill:{__version__}-cuda",
        ray_version=version("ray"),
        env=_parsed(env),
        volumes=_claims(volumes),
        **settings,
    )
    with opened_in_its_folder(path, overrides) as opened:
        job = opened.job
        names = named_files(opened.file, job)
        check_locations(job, names, mounted=list(chosen.volumes))
        files = {name: Path(name).read_text(encoding="utf-8-sig") for name in names}
    from jobs.kubernetes.documents import JobDocuments  # not at the top: a typo is told before torch is imported
    from pipeline.node_sizes import GpuNodes, cluster_sizes

    documents = JobDocuments(
        job,
        cluster_sizes(job, GpuNodes(**gpus), **tiling),
        chosen,
        files=files,
        command=run_command(opened.file, opened.overrides),
        stop_wait_s=stop_wait_s(job),
    )
    if schedule is None:
        wanted = documents.once()
    else:
        wanted = documents.on_cron_job() if cron_job else documents.on_kuberays_schedule()
    print(yaml.dump_all(wanted, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120), end="")
    return EXIT_DONE


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are read; nothing by reference, which few tools follow."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _check_schedule(schedule: str | None, *, cron_job: bool, queue: str | None) -> None:
    if schedule is None:
        if cron_job:
            raise typer.BadParameter('--cronjob needs --schedule, such as "0 2 * * *"')
        return
    if not _CRON.fullmatch(schedule):
        raise typer.BadParameter(f'--schedule has five fields, such as "0 2 * * *", got {schedule!r}')
    if queue and not cron_job:
        raise typer.BadParameter(
            "--queue with --schedule needs --cronjob: Kueue looks at the labels of a RayJob, and the template of a "
            "RayCronJob has no place for any"
        )


def _parsed(env: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for pair in env:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise typer.BadParameter(f"--env has the form NAME=VALUE, got {pair!r}")
        if _CREDENTIAL.search(name):
            raise typer.BadParameter(
                f"--env {name} looks like a credential, and whoever may read a manifest would read it: "
                "give the rights to the service account"
            )
        parsed[name] = value
    return parsed


def _claims(volumes: Sequence[str]) -> dict[str, str]:
    """Folders and the claims that are mounted there."""
    claims: dict[str, str] = {}
    for pair in volumes:
        claim, _, folder = pair.partition(":")
        folder = os.path.normpath(folder) if folder else ""
        if not _CLAIM.fullmatch(claim) or not folder.startswith("/") or folder == "/" or ":" in folder:
            raise typer.BadParameter(f"--volume has the form CLAIM:/FOLDER, got {pair!r}")
        for other in (*claims, *_FOLDERS_OF_ITS_OWN):
            if PurePosixPath(folder).is_relative_to(other) or PurePosixPath(other).is_relative_to(folder):
                raise typer.BadParameter(
                    f"--volume {pair} and {other} lie in each other: give each a folder of its own"
                )
        claims[folder] = claim
    return claims
