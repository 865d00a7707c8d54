"""Rows for tests, made from a flat list of fields."""

import dataclasses
from typing import Any

from schemas.rows import ImageRow, RowImage

_OF_IMAGE = {"image_uri": "uri", "image_sha256": "sha256"} | {
    name: name for name in ("version", "member", "width_px", "height_px", "tiles_wide", "tiles_high")
}


def one_image_row(**fields: Any) -> ImageRow:
    """A row of one image, whose own fields are named as the row's properties are."""
    image = {_OF_IMAGE[name]: fields.pop(name) for name in list(fields) if name in _OF_IMAGE}
    return ImageRow(**{"manifest_shard": "shard-00000.parquet", "recipes": (), **fields}, images=(RowImage(**image),))


def with_image(row: ImageRow, **fields: Any) -> ImageRow:
    """The row with these fields of its first image changed."""
    first, *others = row.images
    return dataclasses.replace(row, images=(dataclasses.replace(first, **fields), *others))
