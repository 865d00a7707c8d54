"""Samples -> `shard-NNNNNN.tar`: of each sample its pictures and one JSON file with all its labels, under one key.

The bytes of a shard follow from the samples alone: names in a fixed order, no times, no owners.
"""

import io
import tarfile
from collections.abc import Sequence
from typing import Any

from pipeline.exports.destination import Destination
from pipeline.exports.json_text import Spool, json_line
from pipeline.exports.pictures import Picture
from pipeline.exports.samples import Sample
from schemas.tables import COMMON, OWN

BYTES_PER_SHARD = 512 * 1024 * 1024
"""A shard ends before the sample that would make it larger; one sample is always in it."""

_OF_SAMPLE = frozenset(
    ("sample_id", "image_uri", "image_sha256", "width_px", "height_px", "tiles_wide", "tiles_high", "more_images")
)
_BLOCK_BYTES = 512


class WebDatasetShards:
    """Of sample `KEY`: `KEY.jpg` (or what it is), `KEY.1.jpg` of a second picture, and `KEY.json`."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._num_shards = self._num_bytes = 0
        self._spool: Spool | None = None
        self._tar: tarfile.TarFile | None = None

    def add(self, sample: Sample, pictures: Sequence[Picture]) -> int:
        key = sample.row.sample_id
        members = [
            (f"{key}.{f'{index}.' if index else ''}{picture.extension}", picture.encoded)
            for index, picture in enumerate(pictures)
        ]
        members.append((f"{key}.json", json_line(_labels(sample, pictures)).encode()))
        num_bytes = sum(_BLOCK_BYTES + -(-len(data) // _BLOCK_BYTES) * _BLOCK_BYTES for _, data in members)
        if self._num_bytes and self._num_bytes + num_bytes > BYTES_PER_SHARD:
            self._end_shard()
        tar = self._open_shard()
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        self._num_bytes += num_bytes
        return 0

    def finish(self) -> None:
        self._open_shard()
        self._end_shard()

    def _open_shard(self) -> tarfile.TarFile:
        if self._tar is None:
            self._spool = Spool()
            self._tar = tarfile.open(fileobj=self._spool.file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        return self._tar

    def _end_shard(self) -> None:
        assert self._tar is not None
        assert self._spool is not None
        self._tar.close()
        with self._spool:
            self._destination.put_file(f"shard-{self._num_shards:06d}.tar", self._spool.file)
        self._num_shards, self._num_bytes, self._tar = self._num_shards + 1, 0, None


def _labels(sample: Sample, pictures: Sequence[Picture]) -> dict[str, Any]:
    """By table, the labels; under `images` what they are of, under `source` what the source carried along."""
    record: dict[str, Any] = {
        "sample_id": sample.row.sample_id,
        "images": [
            {"uri": of.uri, "sha256": of.sha256, "width_px": of.width_px, "height_px": of.height_px} for of in pictures
        ],
    }
    for table, rows in sample.rows.items():
        ours = {field.name for field in (*COMMON, *OWN[table])}
        labels = rows.to_pylist()
        carried = {name: value for name, value in labels[0].items() if name not in ours}
        if carried:
            record["source"] = carried
        record[table] = [
            {name: value for name, value in label.items() if name in ours - _OF_SAMPLE} for label in labels
        ]
    return record
