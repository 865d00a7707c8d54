"""Rows of the manifest -> their images as an export holds them: fetched as the job fetches them, and upright.

What has changed since it was labelled is no picture of its labels: like one that cannot be fetched, it is an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.exports.samples import Sample
from pipeline.exports.upright import upright
from pipeline.fetch import FetchImage
from pipeline.ledger import RunFolder
from pipeline.list_source import open_source
from pipeline.source import SourceColumns
from pipeline.stage_arguments import fetch_arguments
from pipeline.storage import canonical_uri, shown_uri
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, RowError, RowFailure
from schemas.job import JobSpec
from schemas.rows import ENCODED_COLUMN, RowImage, rows_of, to_columns

_COLUMNS = ["image_uri", "image_sha256", "width_px", "height_px", "more_images"]
ROWS_PER_BLOCK = 16
"""Fetched at once, and held at once."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`name`: of the copy, relative to the export; without copies the URI. The size is that of the picture upright, the
    hash that of the labelled bytes. `encoded` is b"" without copies."""

    name: str
    uri: str
    sha256: str
    width_px: int
    height_px: int
    encoded: bytes = b""
    is_turned: bool = False

    @property
    def extension(self) -> str:
        """Without its dot."""
        return self.name.rpartition(".")[2]


class FetchPictures:
    """Blocks of samples -> the pictures of each, or why there are none."""

    def __init__(self, job: JobSpec, folder: RunFolder) -> None:
        self._limits = job.limits
        self._fetch = fetch_of(job, folder)

    def __call__(self, samples: Sequence[Sample]) -> Iterator[tuple[Picture, ...] | RowError]:
        block = self._fetch(to_columns([sample.row for sample in samples]))
        for sample, row, encoded in zip(samples, rows_of(block), block[ENCODED_COLUMN], strict=True):
            yield row.error or self._pictures(sample, row.images, encoded)

    def _pictures(
        self, sample: Sample, images: Sequence[RowImage], encoded: Sequence[bytes]
    ) -> tuple[Picture, ...] | RowError:
        labelled = {sha256 for rows in sample.rows.values() for sha256 in rows["image_sha256"].to_pylist()}
        if images and labelled != {images[0].sha256}:
            return _changed(images[0])
        pictures = []
        for index, (image, of_labels, data) in enumerate(zip(images, labelled_pictures(sample), encoded, strict=True)):
            try:
                copy = upright(data, uri=image.uri, limits=self._limits)
            except RowFailure as failure:
                return failure.error.of_image(index + 1, len(images))
            if (image.sha256, copy.size) != (of_labels.sha256, (of_labels.width_px, of_labels.height_px)):
                return _changed(image)
            pictures.append(
                Picture(
                    name=image_name(sample.row.sample_id, index, copy.extension),
                    uri=image.uri,
                    sha256=image.sha256,
                    width_px=copy.size[0],
                    height_px=copy.size[1],
                    encoded=copy.encoded,
                    is_turned=copy.is_turned,
                )
            )
        return tuple(pictures)


def labelled_pictures(sample: Sample) -> tuple[Picture, ...]:
    """What the labels say of the sample's images; without bytes, under their URIs."""
    (record,) = next(iter(sample.rows.values())).slice(0, 1).select(_COLUMNS).to_pylist()
    if not record["image_sha256"]:
        return ()
    first = {name: record[f"image_{name}"] for name in ("uri", "sha256")}
    images = [record | first, *(record["more_images"] or ())]
    return tuple(
        Picture(name=image["uri"], **{name: image[name] for name in ("uri", "sha256", "width_px", "height_px")})
        for image in images
    )


def image_name(sample_id: str, index: int, extension: str, suffix: str = "") -> str:
    """Unique, because a sample's id is; a folder for each two digits, because few file systems like a million names in
    one."""
    place = f"-{index}" if index else ""
    return f"images/{sample_id[:2]}/{sample_id}{place}{suffix}.{extension}"


def fetch_of(job: JobSpec, folder: RunFolder) -> FetchImage:
    """The images of a manifest, fetched as its job fetches them."""
    image_column, folder_uri = _layout(job, folder)
    policy = UriPolicy.of_source(job.source, folder_uri)
    return FetchImage(**fetch_arguments(job, image_column=image_column, uri_policy=policy))


def _layout(job: JobSpec, folder: RunFolder) -> tuple[str | None, str]:
    """(image column, folder of the source)."""
    try:
        source = open_source(job.source, SourceColumns(), without=folder.written_uris)
    except ValueError:
        # The source is not what it was, which each image that has gone with it will say; others may still be there.
        return job.source.image_column or "image", canonical_uri(job.source.uri)
    return source.image_column, source.folder_uri


def _changed(image: RowImage) -> RowError:
    message = f"{shown_uri(image.uri)}: is not the image that was labelled any more"
    return RowError(kind=ErrorKind.CHANGED, message=message)
