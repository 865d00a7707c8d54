"""Labelled rows -> how many bytes of Parquet they make, by writing them as a run would, into a temporary folder."""

import dataclasses
import tempfile
from collections.abc import Sequence

from pipeline.ledger import RunFolder
from pipeline.sink import LabelSink, SinkConfig
from pipeline.storage import open_store
from schemas.rows import ImageRow, to_columns


def bytes_per_image(rows: Sequence[ImageRow], config: SinkConfig) -> float:
    """Of the label tables and the quarantine, without what a file takes whatever is in it: that is the difference that
    the second half of the rows makes."""
    first_half = rows[: len(rows) // 2]
    if not first_half:
        return _staged_bytes(rows, config)
    return (_staged_bytes(rows, config) - _staged_bytes(first_half, config)) / (len(rows) - len(first_half))


def _staged_bytes(rows: Sequence[ImageRow], config: SinkConfig) -> int:
    with tempfile.TemporaryDirectory(prefix="labelmill-plan-") as output:
        LabelSink(config=dataclasses.replace(config, output_uri=output))(to_columns(rows))
        staged = RunFolder(output).all_staged_uri
        return sum(info.num_bytes for info in open_store(output).list_or_empty(staged))
