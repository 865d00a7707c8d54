"""An opened image file -> what its EXIF says of the picture: when, with what and where it was taken, by plain names.

Whoever made the file wrote it: what is not of the type, range, length or script that is expected is left out, one fact
at a time, and nothing here raises.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

MAX_VALUE_CHARS = 300
"""Longer values are left out: half a sentence says something else."""
_MAX_NAME_CHARS = 100
"""Of cameras, lenses and people."""

_Base, _Ifd, _Gps = ExifTags.Base, ExifTags.IFD, ExifTags.GPS
_DEGREES_OF = {"N": 90, "S": 90, "E": 180, "W": 180}
_MARKUP = re.compile(r"[<>]")
"""Control tokens of a chat format stand in such brackets; names do not have them."""


def metadata_of(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """(name, value) of each fact that the file states, in a fixed order; none where its EXIF is broken."""
    try:
        exif = image.getexif()
        tags: dict[int, Any] = {**exif, **exif.get_ifd(_Ifd.Exif)}
        gps: dict[int, Any] = dict(exif.get_ifd(_Ifd.GPSInfo))
    except Exception:  # noqa: BLE001 - broken metadata throws anything, and the pixels are still good
        return ()
    return tuple((name, value) for name, value in _facts(tags, gps) if value and len(value) <= MAX_VALUE_CHARS)


def is_metadata(pairs: object) -> bool:
    """Whether this is something that `metadata_of` could have made."""
    return isinstance(pairs, list | tuple) and all(
        len(pair) == 2 and pair[0] in NAMES and isinstance(pair[1], str) and _is_plain(pair[1], MAX_VALUE_CHARS)
        for pair in pairs
    )


def _facts(tags: Mapping[int, Any], gps: Mapping[int, Any]) -> Iterator[tuple[str, str | None]]:
    for name, read in _READERS.items():
        yield name, _careful(read, tags)
    yield PLACE, _careful(_place, gps)


def _careful(read: Callable[[Mapping[int, Any]], str | None], tags: Mapping[int, Any]) -> str | None:
    try:
        return read(tags)
    except Exception:  # noqa: BLE001 - a value of a strange type; the other facts stand
        return None


def _taken(tags: Mapping[int, Any]) -> str | None:
    text = _printable(tags.get(_Base.DateTimeOriginal), _MAX_NAME_CHARS)
    return str(datetime.strptime(text, "%Y:%m:%d %H:%M:%S")) if text else None


def _camera(tags: Mapping[int, Any]) -> str | None:
    make, model = (_printable(tags.get(tag), _MAX_NAME_CHARS) for tag in (_Base.Make, _Base.Model))
    if make and model and not model.casefold().startswith(make.split()[0].casefold()):
        return f"{make} {model}"
    return model or make


def _lens(tags: Mapping[int, Any]) -> str | None:
    return _printable(tags.get(_Base.LensModel), _MAX_NAME_CHARS)


def _exposure(tags: Mapping[int, Any]) -> str | None:
    seconds = _number(tags.get(_Base.ExposureTime), up_to=9999)
    if seconds is None or seconds < 1e-6:
        return None
    return f"1/{round(1 / seconds)} s" if seconds <= 0.25 else f"{seconds:.4g} s"


def _aperture(tags: Mapping[int, Any]) -> str | None:
    number = _number(tags.get(_Base.FNumber), up_to=512)
    return None if number is None else f"f/{number:.3g}"


def _sensitivity(tags: Mapping[int, Any]) -> str | None:
    value = tags.get(_Base.ISOSpeedRatings)
    speed = _number(value[0] if isinstance(value, tuple) else value, up_to=10_000_000)
    return None if speed is None else f"ISO {speed:.0f}"


def _focal_length(tags: Mapping[int, Any]) -> str | None:
    length_mm = _number(tags.get(_Base.FocalLength), up_to=9999)
    return None if length_mm is None else f"{length_mm:.4g} mm"


def _artist(tags: Mapping[int, Any]) -> str | None:
    return _printable(tags.get(_Base.Artist), _MAX_NAME_CHARS)


def _description(tags: Mapping[int, Any]) -> str | None:
    return _printable(tags.get(_Base.ImageDescription), MAX_VALUE_CHARS)


def _place(gps: Mapping[int, Any]) -> str | None:
    latitude = _degrees(gps.get(_Gps.GPSLatitude), gps.get(_Gps.GPSLatitudeRef), "NS")
    longitude = _degrees(gps.get(_Gps.GPSLongitude), gps.get(_Gps.GPSLongitudeRef), "EW")
    if latitude is None or longitude is None or (latitude[0], longitude[0]) == (0, 0):
        return None  # both 0 is what a camera writes that does not know
    return ", ".join(f"{degrees:.5f}° {hemisphere}" for degrees, hemisphere in (latitude, longitude))


def _degrees(value: object, hemisphere: object, hemispheres: str) -> tuple[float, str] | None:
    """Degrees, minutes and seconds -> decimal degrees and the hemisphere."""
    letter = _printable(hemisphere, 4)
    if letter not in tuple(hemispheres) or not isinstance(value, tuple) or len(value) != 3:
        return None
    degrees, minutes, seconds = map(float, value)
    total = degrees + minutes / 60 + seconds / 3600
    in_range = degrees >= 0 and 0 <= minutes < 60 and 0 <= seconds <= 60 and total <= _DEGREES_OF[letter]
    return (total, letter) if in_range else None


def _number(value: Any, *, up_to: float) -> float | None:
    """A number of EXIF over 0, rational or not; None where it is out of the range, or none: denominators may be 0."""
    number = float(value)
    return number if 0 < number <= up_to else None


def _printable(value: object, max_chars: int) -> str | None:
    """A text on one line; None for anything else, also for what spells a control token."""
    if not isinstance(value, str):
        return None
    text = " ".join(_as_utf8(value.rstrip("\0 ")).split())
    return text if _is_plain(text, max_chars) else None


def _is_plain(text: str, max_chars: int) -> bool:
    return 0 < len(text) <= max_chars and text.isprintable() and not _MARKUP.search(text)


def _as_utf8(text: str) -> str:
    """Pillow reads text as Latin-1, and most programs write UTF-8."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


PLACE = "place"
"""Where the picture was taken; apart from the others, because it may be private."""
_READERS: dict[str, Callable[[Mapping[int, Any]], str | None]] = {
    "taken": _taken,
    "camera": _camera,
    "lens": _lens,
    "exposure time": _exposure,
    "aperture": _aperture,
    "sensitivity": _sensitivity,
    "focal length": _focal_length,
    "artist": _artist,
    "description": _description,
}
NAMES = (*_READERS, PLACE)
