"""What an output was made from, and whether a later run on it is made from the same."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.recorded_job import places_of
from pipeline.source import SourceColumns
from schemas.job import JobSpec
from schemas.tables import SCHEMA_VERSION

OBJECTS = "checkpoint objects"
"""Key of an identity, if the checkpoint lies in a store. See `_are_rewritten`."""

_LATER_SOURCE_KEYS = ("pdf_dpi",)


def identity_of(
    job: JobSpec,
    checkpoint_digest: str,
    recipe_digests: Mapping[str, str],
    columns: SourceColumns,
    carried_schema: pa.Schema | None,
) -> dict[str, Any]:
    """What an output was made from; a later run may only add recipes to it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "output.keep_versions": "a number" if job.output.keep_versions else "not set",
        # The same relative path names something else in another folder. What the source's tables are trusted with may
        # change: the images are the same ones.
        "source": job.source.model_dump(mode="json", exclude={*job.source.TRUST, "image_root", *_at_default(job)})
        | places_of(job),
        "columns carried along": {field.name: str(field.type) for field in carried_schema or ()},
        # The manifest holds what these columns say: images listed without them would be asked nothing.
        "columns read": asdict(columns),
        "checkpoint digest": checkpoint_digest,
        "recipes": dict(recipe_digests),
    }


def _at_default(job: JobSpec) -> set[str]:
    """Of the later keys of a source, those that the job does not use: outputs made before they came lack them."""
    fields = type(job.source).model_fields
    return {key for key in _LATER_SOURCE_KEYS if getattr(job.source, key) == fields[key].default}


def refuse_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], output_uri: str) -> None:
    changed = [
        key
        for key in ("schema_version", "output.keep_versions", "source", "columns carried along", "checkpoint digest")
        if earlier.get(key) != now[key]
    ]
    if "checkpoint digest" not in changed and _are_rewritten(earlier.get(OBJECTS), now.get(OBJECTS)):
        changed.append(
            f"state of the weight files in {now[OBJECTS]['uri']} (written again since, by their ETags; the same bytes "
            "may be used from another prefix)"
        )
    for use, column in now["columns read"].items():
        if (before := earlier.get("columns read", {}).get(use)) != column:
            changed.append(f"column of {use.replace('_', ' ')} ({before or 'none'} then, {column or 'none'} now)")
    for name, digest in earlier["recipes"].items():
        if name not in now["recipes"]:
            changed.append(f"recipe {name} (removed)")
        elif now["recipes"][name] != digest:
            changed.append(f"recipe {name}")
    if changed:
        raise ValueError(
            f"output {output_uri} was made by an earlier run with another {', '.join(changed)}: "
            "choose another output, or undo the change (adding recipes or images is fine)"
        )


def _are_rewritten(earlier: Mapping[str, str] | None, now: Mapping[str, str] | None) -> bool:
    """Whether the objects at one place are others than before. At another place there is only the digest to compare: a
    copy has ETags of its own, as have objects that were uploaded in other parts. Earlier releases recorded none."""
    if earlier is None or now is None or earlier["uri"] != now["uri"]:
        return False
    return earlier["sha256"] != now["sha256"]
