"""A picture and a mark -> a copy of it with the mark drawn in as the model saw it, beside the others of the export."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from pipeline.decode import decode_image
from pipeline.exports.destination import Destination
from pipeline.exports.pictures import Picture, image_name
from pipeline.marks import draw_mark
from schemas.rows import Mark


def put_marked(destination: Destination, mark: Mapping[str, Any], sample_id: str, picture: Picture) -> str:
    """Its name, which follows from the mark: two questions about one mark share a picture."""
    decoded = decode_image(
        picture.encoded, max_pixels=picture.width_px * picture.height_px, min_decoded_fraction=_WHATEVER_THERE_IS
    )
    points = tuple((point["x"], point["y"]) for point in mark["points"])
    marked = draw_mark(decoded.image, Mark(kind=mark["kind"], points=points, color=mark["color"]))
    file = io.BytesIO()
    marked.save(file, "PNG")
    digest = hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()[:12]
    name = image_name(sample_id, 0, "png", suffix=f"-mark-{digest}")
    destination.put(name, file.getvalue())
    return name


_WHATEVER_THERE_IS = 1e-9
"""The file was labelled, so that enough of it can be decoded."""
