"""What runs on an output have listed of its source, as `run.json` says: shards of the manifest, and what has gone."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.absent import ShardAbsences, put_absent
from pipeline.ledger import RunFolder
from pipeline.manifest import write_manifest
from pipeline.new_rows import NewRows
from pipeline.source import Source


def listed_shards(run: Mapping[str, Any]) -> list[str]:
    """The manifest shards that `run.json` names, those of earlier runs first."""
    return [shard for listed in run["shards_by_run"] for shard in listed]


def absences(run: Mapping[str, Any]) -> dict[str, ShardAbsences]:
    """By shard, what `run.json` says of its images that the source no longer has."""
    return {shard: ShardAbsences(**of_shard) for shard, of_shard in run.get("absent", {}).items()}


def extend_manifest(
    source: Source, folder: RunFolder, earlier: Mapping[str, Any] | None, limit: int | None
) -> dict[str, Any]:
    """Adds shards for what no earlier run has listed."""
    by_run: list[list[str]] = [list(shards) for shards in earlier["shards_by_run"]] if earlier else []
    num_images: int = earlier["num_images"] if earlier else 0
    new_rows = NewRows(source, [[folder.shard_uri(shard) for shard in shards] for shards in by_run])
    remaining = None if limit is None else max(0, limit - num_images)
    added = write_manifest(new_rows, folder.manifest_uri, limit=remaining, first_shard=sum(map(len, by_run)))
    absent = absences(earlier or {})
    if new_rows.absent is not None:  # else the listing ended at the limit, and says nothing of what it did not list
        absent = put_absent(folder.absent_uri, new_rows.absent, absent)
    return {
        "absent": {shard: asdict(of_shard) for shard, of_shard in absent.items()},
        "shards_by_run": [*by_run, list(added.shards)] if added.shards else by_run,
        "num_images": num_images + added.num_images,
        "num_ignored_files": added.num_ignored,
        "shard_sha256": {**(earlier.get("shard_sha256", {}) if earlier else {}), **added.sha256},
    }
