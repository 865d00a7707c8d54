"""Encoded bytes -> what they look like, and whether the file ends before it says it does.

Looks at markers and length fields only; knows no pixels, and gives no verdict on whether a decoder will succeed.
"""

import struct

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"P5", "PGM"),
    (b"P6", "PPM"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "an ICO icon"),
    (b"%!PS", "PostScript"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"PAR1", "Parquet"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file it stands for"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"mif1": "HEIF", b"msf1": "HEIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis"), "HEIC"
)
_TIFF_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of one value, by the type's number; the others have one byte."""
_TIFF_DATA_TAGS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_TIFF_WHOLE_NUMBERS = {3: "H", 4: "I"}
_BOXES_WITHOUT_DATA = {b"jP  ", b"ftyp", b"jp2h", b"meta"}
_SUPPORTED = ("JPEG", "PNG", "GIF", "TIFF", "BMP", "JPEG 2000", "WebP", "AVIF")


def looks_like(encoded: bytes) -> str:
    """A few words for a person on what the first bytes are, e.g. `HTML` or `HEIC`."""
    for magic, name in _MAGIC:
        if encoded.startswith(magic):
            return name
    if encoded[:4] == b"RIFF":
        return "WebP" if encoded[8:12] == b"WEBP" else "a RIFF file that is not WebP"
    if encoded[4:8] == b"ftyp":
        return _BRANDS.get(encoded[8:12], "an MP4-like container")
    if not encoded.strip(b"\0"):
        return "nothing but zero bytes"
    return _text_kind(encoded[:512]) or f"unknown data starting with {encoded[:8].hex(' ')}"


def is_cut_off(encoded: bytes) -> bool:
    """Whether a file of a supported image format lacks its end, by its own length field or end marker."""
    kind = looks_like(encoded)
    tail = encoded[-64:].rstrip(b"\0\r\n")
    if kind in ("JPEG", "PNG", "GIF"):
        return {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}[kind] not in tail
    return kind in _SUPPORTED and len(encoded) < _declared_num_bytes(encoded, kind)


def _text_kind(head: bytes) -> str:
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < 512 else "ignore").lstrip().lower()
    except UnicodeDecodeError:
        return ""
    if any(ord(character) < 32 and character not in "\t\n\r\f" for character in text):
        return ""
    if "<svg" in text:
        return "SVG, a drawing without pixels"
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "HTML, perhaps an error page instead of the image"
    if text.startswith("<"):
        return "XML, perhaps an error of the store instead of the image"
    return "JSON" if text.startswith(("{", "[")) else "text"


def _declared_num_bytes(encoded: bytes, kind: str) -> int:
    """The least length the file needs by its own account; one more than it has where even that is cut off."""
    try:
        match kind:
            case "WebP":
                return 8 + int(struct.unpack_from("<I", encoded, 4)[0])
            case "BMP":
                return int(struct.unpack_from("<I", encoded, 2)[0])
            case "TIFF":
                return _end_of_tiff(encoded)
            case _:
                return _end_of_boxes(encoded)
    except struct.error:
        return len(encoded) + 1


def _end_of_tiff(encoded: bytes) -> int:
    """Where the last of the first directory, the values it points to, and its strips or tiles of pixels ends."""
    order = "<" if encoded[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", encoded, 4)
    (num_entries,) = struct.unpack_from(order + "H", encoded, start)
    ends, numbers = [start + 2 + 12 * num_entries], {}
    for offset in range(start + 2, ends[0], 12):
        tag, kind, count, value = struct.unpack_from(order + "HHII", encoded, offset)
        num_bytes = count * _TIFF_BYTES.get(kind, 1)
        ends.append(value + num_bytes if num_bytes > 4 else 0)
        if tag in _TIFF_DATA_TAGS and kind in _TIFF_WHOLE_NUMBERS and tag not in numbers:
            values_at = value if num_bytes > 4 else offset + 8
            numbers[tag] = struct.unpack_from(f"{order}{count}{_TIFF_WHOLE_NUMBERS[kind]}", encoded, values_at)
    for offsets_tag, sizes_tag in ((273, 279), (324, 325)):
        pieces = zip(numbers.get(offsets_tag, ()), numbers.get(sizes_tag, ()), strict=False)
        ends += [offset + size for offset, size in pieces]
    return max(ends)


def _end_of_boxes(encoded: bytes) -> int:
    """Where the last top-level box of an ISO media file (AVIF, JPEG 2000) ends; beyond the end where none has data."""
    offset, kinds = 0, set()
    while offset < len(encoded):
        size = int(struct.unpack_from(">I", encoded, offset)[0])
        if size == 1:
            size = int(struct.unpack_from(">Q", encoded, offset + 8)[0])
        kinds.add(encoded[offset + 4 : offset + 8])
        # 0 stands for "up to the end of the file", and less than a box header for damage, not for a cut.
        offset = offset + size if size >= 8 else len(encoded)
    return offset if kinds - _BOXES_WITHOUT_DATA else len(encoded) + 1
