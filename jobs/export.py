"""`labelmill export`: a finished output -> its labels in another form; what is in it, and what is not, printed."""

import json
from collections.abc import Sequence

from rich.console import Console

from jobs.exit_codes import EXIT_DONE, EXIT_QUARANTINED
from pipeline.exports.export import Exported, export


def export_output(
    output: str,
    *,
    to: str,
    out: str | None,
    tables: Sequence[str],
    without_flags: Sequence[str],
    copy_images: bool,
    as_json: bool,
) -> int:
    """Returns 0, or 3 where samples lack images that can no longer be fetched; what cannot be exported raises
    ValueError."""
    exported = export(output, to=to, out=out, tables=tables, without_flags=without_flags, copy_images=copy_images)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in _lines(exported):
        console.print(line)
    if as_json:
        print(json.dumps({"destination": exported.destination, **exported.facts()}, ensure_ascii=False))
    return EXIT_QUARANTINED if exported.num_missing_samples else EXIT_DONE


def _lines(exported: Exported) -> list[str]:
    rows = ", ".join(f"{table} {count}" for table, count in exported.num_rows.items())
    lines = [
        f"{exported.num_samples} samples, {exported.num_images} images ({exported.num_turned_images} turned upright)",
        f"rows: {rows or 'none'}",
    ]
    if exported.left_out_by_flag:
        flags = ", ".join(f"{flag} {count}" for flag, count in exported.left_out_by_flag.items())
        lines.append(f"left out: {exported.num_rows_left_out} rows, by flag: {flags}")
    if exported.num_rows_not_in_source:
        lines.append(f"left out: {exported.num_rows_not_in_source} rows of images that are gone or have changed")
    if exported.num_rows_cut_short:
        lines.append(f"left out with them: {exported.num_rows_cut_short} later turns of their conversations")
    if exported.num_missing_samples:
        lines.append(f"MISSING: {exported.num_missing_samples} samples whose images cannot be had any more:")
        lines += [f"  {sentence}" for sentence in exported.missing]
        if exported.num_missing_samples > len(exported.missing):
            lines.append(f"  ... and {exported.num_missing_samples - len(exported.missing)} more: see _left_out.jsonl")
    return [*lines, f"exported: {exported.num_bytes} bytes of {exported.to} in {exported.destination}"]
