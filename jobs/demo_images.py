"""A folder -> the demo's inputs: unseen scenes in many formats and modes, and files that are broken on purpose."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from model.nano.scenes import Scene, World, render_scene, scene_seed

NUM_PICTURES = 24
DEMO_SEED = 4000
"""Training draws from seeds 1 and 2, so the model has seen none of these."""

TEXT_ONLY = World(page_share=1.0)
"""For formats without colour, which is all that tells two shapes apart."""

Save = Callable[[Image.Image, Path], None]


def draw_scenes(folder: Path) -> dict[str, Scene]:
    """Writes the pictures, the same every time; returns what is in them, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    formats = list(_FORMATS.items())
    scenes = {}
    for index in range(NUM_PICTURES):
        name, (suffix, save) = formats[index % len(formats)]
        world = TEXT_ONLY if name.startswith("grey") else World()
        scene = render_scene(scene_seed(DEMO_SEED, index), world)
        path = folder / f"{index:02d}-{name}{suffix}"
        save(scene.image, path)
        scenes[path.name] = scene
    return scenes


def _save_rotated(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright; the pixels lie on their side
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def _save_transparent(image: Image.Image, path: Path) -> None:
    copy = image.copy()
    copy.putalpha(image.convert("L").point(lambda level: 255 if level < 240 else 0))
    copy.save(path)


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


def draw_unseen(folder: Path, *, seed: int, count: int) -> dict[str, Scene]:
    """So many scenes of a seed, as PNG and JPEG by turns."""
    names = [f"{index:05d}.{'jpg' if index % 2 else 'png'}" for index in range(count)]
    scenes = {name: render_scene(scene_seed(seed, index)) for index, name in enumerate(names)}
    for name, scene in scenes.items():
        scene.image.save(folder / name, quality=92)
    return scenes


def write_broken_files(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "cut-off.jpg"
    render_scene(scene_seed(DEMO_SEED, 0)).image.save(whole)
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
