"""A folder -> the demo's inputs: drawn pictures in many formats and modes, and files that are broken on purpose."""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

NUM_PICTURES = 24
_COLORS = ("crimson", "royalblue", "seagreen", "orange", "purple", "teal", "goldenrod", "black")
_WORDS = ("OPEN", "Platform 3", "EXIT", "No parking", "Bakery", "42", "Museum", "Hello, world")
_SIZES = ((320, 240), (640, 200), (200, 640), (400, 400), (900, 300), (150, 90))

Save = Callable[[Image.Image, Path], None]


def draw_images(folder: Path) -> list[Path]:
    """Writes the pictures and the broken files; the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    formats = list(_FORMATS.items())
    paths = []
    for index in range(NUM_PICTURES):
        name, (suffix, save) = formats[index % len(formats)]
        path = folder / f"{index:02d}-{name}{suffix}"
        save(_picture(index), path)
        paths.append(path)
    return paths + _broken_files(folder / "broken")


def _picture(seed: int) -> Image.Image:
    """A few coloured shapes and a word on a light ground."""
    rng = random.Random(seed)
    width, height = _SIZES[seed % len(_SIZES)]
    image = Image.new("RGB", (width, height), (245, 243, 238))
    draw = ImageDraw.Draw(image)
    side = min(width, height)
    for color in rng.sample(_COLORS, k=rng.randint(1, 3)):
        size = rng.uniform(0.2, 0.45) * side
        x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
        shape = rng.choice((draw.ellipse, draw.rectangle, draw.rounded_rectangle))
        shape((x, y, x + size, y + size), fill=color)
    font = ImageFont.load_default(size=max(12, side // 8))
    draw.text((side * 0.06, height - side * 0.2), rng.choice(_WORDS), fill="black", font=font)
    return image


def _save_rotated(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright; the pixels lie on their side
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def _save_transparent(image: Image.Image, path: Path) -> None:
    image.putalpha(image.convert("L").point(lambda level: 255 if level < 240 else 0))
    image.save(path)


_FORMATS: dict[str, tuple[str, Save]] = {
    "jpeg": (".jpg", lambda image, path: image.save(path, quality=90)),
    "png": (".png", lambda image, path: image.save(path)),
    "webp": (".webp", lambda image, path: image.save(path)),
    "tiff": (".tif", lambda image, path: image.save(path)),
    "gif": (".gif", lambda image, path: image.convert("P").save(path)),
    "bmp": (".bmp", lambda image, path: image.save(path)),
    "avif": (".avif", lambda image, path: image.save(path)),
    "cmyk": (".jpg", lambda image, path: image.convert("CMYK").save(path)),
    "rotated": (".jpg", _save_rotated),
    "transparent": (".png", _save_transparent),
    "grey16": (
        ".png",
        lambda image, path: image.convert("I").point(lambda level: level * 257).convert("I;16").save(path),
    ),
    "grey": (".png", lambda image, path: image.convert("L").save(path)),
}


def _broken_files(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "cut-off.jpg"
    _picture(0).save(whole)
    contents = {
        "cut-off.jpg": whole.read_bytes()[: whole.stat().st_size // 2],
        "empty.png": b"",
        "error-page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "bomb.png": _png_header(width=60_000, height=60_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def _png_header(*, width: int, height: int) -> bytes:
    """A PNG that claims to be enormous: 3.6 gigapixels, refused before a pixel is decoded."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [body, b"IDAT" + zlib.compress(b"\0" * 64), end]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
