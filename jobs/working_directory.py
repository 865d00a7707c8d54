"""A job file -> the files that go with it to a cluster, and the archive that Ray unpacks there.

The job's folder is the working folder of the run there: what the job names relative to it is found again. Knows no
cluster.
"""

import itertools
import os
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipeline.recipes.files import load_recipe
from schemas.job import JobSpec

MAX_BYTES = 100 * 1024**2
"""Ray's dashboard takes no longer request (`DASHBOARD_CLIENT_MAX_SIZE`)."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def files_to_send(folder: Path, job_file: str, job: JobSpec) -> list[str]:
    """Names below the job's folder, sorted: all that git does not ignore where it is a checkout; and always the job
    file and what it names. The working folder must be the job's.

    Raises ValueError as `named_files`, and for more than Ray takes, naming the largest files.
    """
    named = named_files(job_file, job)
    listed = {name for name in _listed_by_git(folder) if (folder / name).is_file()}
    names = sorted({*named, *listed})
    _check_size({name: (folder / name).stat().st_size for name in names})
    return names


def pack(folder: Path, names: Sequence[str], archive: Path) -> None:
    """Equal files make equal archives: Ray names them by their content, and sends none twice."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        for name in names:
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if os.access(folder / name, os.X_OK) else 0o644) << 16
            package.writestr(entry, (folder / name).read_bytes())


def check_locations(job: JobSpec, names: Sequence[str], *, mounted: Sequence[str] | None = None) -> None:
    """Raises ValueError for a place that no machine of a cluster would find: a relative one that is not sent along.
    The working folder must be the job's.

    An output must not be relative at all: each machine has a copy of the working folder, and Ray removes it.

    Args:
        mounted: where machines are pods, the folders that outlast them; None where machines have disks of their own.
            Images and output must lie in these. A checkpoint may be part of the pods' image.
    """
    source = job.source
    images = {
        "source.uri": [source.uri],
        "source.image_root": [source.image_root] if source.image_root else [],
        "source.image_roots": source.image_roots or [],
    }
    checkpoint = [] if _is_found_by_name(job.checkpoint) else [job.checkpoint]
    for key, locations in {**images, "checkpoint": checkpoint}.items():
        for location in locations:
            if _is_relative(location) and not _is_sent(location, names):
                raise ValueError(_elsewhere(key, location, "no file that is sent along lies there"))
    if _is_relative(job.output.uri):
        raise ValueError(_elsewhere("output", job.output.uri, "what is written there goes with the cluster"))
    if mounted is not None:
        for key, locations in {**images, "output": [job.output.uri]}.items():
            for location in locations:
                _check_is_mounted(key, location, mounted)


def _check_is_mounted(key: str, location: str, mounted: Sequence[str]) -> None:
    if "://" in location or _is_relative(location):
        return
    path = PurePosixPath(os.path.normpath(location))
    if not any(path.is_relative_to(folder) for folder in mounted):
        raise ValueError(
            f"{key} is {location}, a folder of this machine that no pod has: give an s3:// URI, or mount a claim "
            f"there, such as --volume CLAIM:{path if key == 'output' else path.parent}"
        )


def _elsewhere(key: str, location: str, why: str) -> str:
    return (
        f"{key} is {location}, relative to a folder of this machine, and {why}: "
        "give an s3:// URI, or an absolute path that every machine of the cluster sees"
    )


def _is_relative(location: str) -> bool:
    return "://" not in location and not location.startswith(("/", "~"))


def _is_sent(location: str, names: Sequence[str]) -> bool:
    """Whether a file is sent that lies at the location or below; of a pattern, below its folder without wildcards."""
    parts = PurePosixPath(os.path.normpath(location)).parts
    plain = tuple(itertools.takewhile(lambda part: not set(part) & set("*?[{"), parts))
    return ".." not in parts and any(PurePosixPath(name).parts[: len(plain)] == plain for name in names)


def _is_found_by_name(checkpoint: str) -> bool:
    """Whether it is built in or a hub id; a folder of this machine that could be either is the folder."""
    return checkpoint == "nano" or (
        checkpoint.count("/") == 1 and not checkpoint.startswith(".") and not Path(checkpoint).is_dir()
    )


def named_files(job_file: str, job: JobSpec) -> list[str]:
    """The job file, the recipe files that it names relative to its folder, and the Python files that these name.

    The working folder must be the job's. Raises ValueError for a file above it.
    """
    files = [job_file]
    for recipe in job.recipes:
        if not recipe.name.endswith((".yaml", ".yml")) or recipe.name.startswith("/"):
            continue
        parse = load_recipe(recipe.name).file.parse
        for name in (recipe.name, *([_beside(recipe.name, parse)] if parse else [])):
            if ".." in Path(os.path.normpath(name)).parts:
                raise ValueError(
                    f"the recipe file {name} lies above the job's folder: only what is in it is sent along"
                )
            files.append(os.path.normpath(name))
    return list(dict.fromkeys(files))


def _beside(recipe_file: str, parse: str) -> str:
    return str(Path(recipe_file).parent / parse.partition(":")[0])


def _listed_by_git(folder: Path) -> list[str]:
    """Of a checkout, what is tracked or could be; nothing elsewhere."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        return []
    if done.returncode == 0:
        return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    message = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in message:
        return []
    raise ValueError(f"git does not list the files of {folder}: {message.splitlines()[0] if message else 'no reason'}")


def _check_size(sizes: Mapping[str, int]) -> None:
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:3]
    shown = ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
    raise ValueError(
        f"the job's folder holds {total / 1e6:.1f} MB that git does not ignore, and Ray takes "
        f"{MAX_BYTES / 1e6:.1f} MB: ignore or move the largest, {shown}"
    )
