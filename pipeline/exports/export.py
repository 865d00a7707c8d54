"""A finished output -> its samples in another form, at another place, and an account of what is in it and what is not.

Formats differ in what they make of a sample; which samples there are, and where their pictures come from, is the same
for all. Memory does not grow with the dataset.
"""

import contextlib
import errno
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.exports.destination import LEFT_OUT, Destination
from pipeline.exports.finished_run import FinishedRun
from pipeline.exports.json_text import Spool, json_line
from pipeline.exports.pictures import ROWS_PER_BLOCK, FetchPictures, Picture, labelled_pictures
from pipeline.exports.samples import Sample, Samples
from pipeline.exports.writers import FORMATS, Format, SampleWriter
from pipeline.output_names import EXPORTS_NAME
from pipeline.storage import join_uri
from schemas.errors import RowError
from schemas.tables import LABEL_TABLES

MAX_MISSING_SHOWN = 20
MARKED_TABLE = "visual_prompts"


@dataclass(kw_only=True)
class Exported:
    """What an export holds, and what it does not. `missing`: sentences, the first `MAX_MISSING_SHOWN` of
    `num_missing_samples`; all are in `_left_out.jsonl`."""

    to: str
    destination: str
    tables: list[str]
    num_samples: int = 0
    num_rows: Counter[str] = field(default_factory=Counter)
    """By table, those that were cut short included."""
    num_images: int = 0
    num_turned_images: int = 0
    num_bytes: int = 0
    left_out_by_flag: Counter[str] = field(default_factory=Counter)
    num_rows_left_out: int = 0
    num_rows_not_in_source: int = 0
    """Of images that the source no longer had when the dataset was written, or in another version."""
    num_rows_cut_short: int = 0
    """Later turns of conversations of which a turn was left out."""
    num_missing_samples: int = 0
    missing: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Without the place, so that equal exports have equal ones."""
        counters = {"num_rows": dict(self.num_rows), "left_out_by_flag": dict(self.left_out_by_flag)}
        return {name: value for name, value in vars(self).items() if name != "destination"} | counters


def export(
    output: str,
    *,
    to: str,
    out: str | None = None,
    tables: Sequence[str] = (),
    without_flags: Sequence[str] = (),
    copy_images: bool = True,
) -> Exported:
    """Writes one of `FORMATS` from an output.

    Args:
        out: folder or prefix; by default `<output>/exports/<to>`.
        tables: by default all that fit the format.
        without_flags: rows with any of these flags are left out.
        copy_images: else records name the images where they are, whichever way they are turned.

    Raises:
        ValueError: one line for an output that is not finished, a table that is not there or does not fit, nothing to
            export, a folder that holds other files, a full disk.
    """
    run, form = FinishedRun.at(output), FORMATS[to]
    if not copy_images and form.holds_images:
        raise ValueError(f"{to} holds the images themselves: leave out --images none, or choose another")
    chosen = _tables(run, form, to, tables, copy_images)
    uri = out or join_uri(run.folder.output_uri, EXPORTS_NAME, to)
    destination = Destination(uri, to=to, reserved_uris=run.folder.reserved_uris)
    exported = Exported(to=to, destination=destination.uri, tables=chosen)
    with _full_disk_named():
        destination.begin()
        _write(run, form, destination, exported, without_flags, copy_images)
        destination.finish(exported.facts())
    return exported


def _write(
    run: FinishedRun,
    form: Format,
    destination: Destination,
    exported: Exported,
    without_flags: Sequence[str],
    copy_images: bool,
) -> None:
    samples = Samples(run, exported.tables, without_flags, beside=form.beside(run.num_rows))
    writer = form.open(destination, run, exported.tables)
    with Spool() as left_out:
        for block in _blocks(run, samples, copy_images):
            copies = []
            for sample, pictures in block:
                if isinstance(pictures, RowError):
                    _leave_out(sample, pictures, exported, left_out)
                else:
                    _add(writer, sample, pictures, exported)
                    copies += [(picture.name, picture.encoded) for picture in pictures]
            if copy_images and not form.holds_images:
                destination.put_all(copies)
        exported.left_out_by_flag = samples.left_out.by_flag
        exported.num_rows_left_out = samples.left_out.num_rows
        exported.num_rows_not_in_source = samples.left_out.num_rows_not_in_source
        if not exported.num_samples and not exported.num_missing_samples:
            if not exported.num_rows_left_out:
                raise ValueError(
                    f"nothing to export: the source no longer has the images of all {exported.num_rows_not_in_source} "
                    f"rows of {', '.join(exported.tables)}"
                )
            raise ValueError(
                f"nothing to export: all {exported.num_rows_left_out} rows of {', '.join(exported.tables)} have one of "
                f"the flags {', '.join(without_flags)}"
            )
        writer.finish()
        if exported.num_missing_samples:
            destination.put_file(LEFT_OUT, left_out.file)
    exported.num_bytes = destination.num_bytes


def _blocks(
    run: FinishedRun, samples: Samples, copy_images: bool
) -> Iterator[Iterator[tuple[Sample, tuple[Picture, ...] | RowError]]]:
    fetch = FetchPictures(run.job, run.folder) if copy_images else lambda block: map(labelled_pictures, block)
    remaining = iter(samples)
    while block := list(itertools.islice(remaining, ROWS_PER_BLOCK)):
        yield zip(block, fetch(block), strict=True)


def _add(writer: SampleWriter, sample: Sample, pictures: Sequence[Picture], exported: Exported) -> None:
    exported.num_rows_cut_short += writer.add(sample, pictures)
    exported.num_samples += 1
    exported.num_rows.update({table: sample.rows[table].num_rows for table in exported.tables if table in sample.rows})
    exported.num_images += len(pictures)
    exported.num_turned_images += sum(picture.is_turned for picture in pictures)


def _leave_out(sample: Sample, error: RowError, exported: Exported, left_out: Spool) -> None:
    record = {"sample_id": sample.row.sample_id, "image_uri": sample.row.image_uri}
    left_out.write(json_line({**record, "error_kind": str(error.kind), "message": error.message}) + "\n")
    exported.num_missing_samples += 1
    if len(exported.missing) < MAX_MISSING_SHOWN:
        exported.missing.append(f"sample {sample.row.sample_id}: {error.message}")


def _tables(run: FinishedRun, form: Format, to: str, wanted: Sequence[str], copy_images: bool) -> list[str]:
    for table in wanted:
        if table not in LABEL_TABLES:
            raise ValueError(f"there is no table {table!r}: choose from {', '.join(LABEL_TABLES)}")
        if table not in run.num_rows:
            raise ValueError(f"the output has no table {table}: it has {', '.join(run.num_rows)}")
        if table not in form.tables:
            raise ValueError(f"table {table} does not fit {to}, which takes {', '.join(form.tables)}")
    if not copy_images and MARKED_TABLE in wanted:
        raise ValueError(f"{MARKED_TABLE} are about pictures with marks drawn in: leave out --images none")
    chosen = [
        table
        for table in form.tables
        if table in (wanted or run.num_rows) and run.num_rows.get(table) and (copy_images or table != MARKED_TABLE)
    ]
    if not chosen:
        looked_at = ", ".join(wanted) or f"the tables that fit {to}: {', '.join(form.tables)}"
        raise ValueError(f"nothing to export: {run.folder.output_uri} has no rows in {looked_at}")
    return chosen


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"the disk of {tempfile.gettempdir()} is full, where files are made before they are put into place: free "
            "some space, or set TMPDIR, and export again"
        ) from error
