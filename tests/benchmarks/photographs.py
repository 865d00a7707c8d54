"""A seed -> pictures with the statistics of photographs, as JPEG: what decoders and resizers are asked to do for real.

Noise compresses badly and flat colour too well. These have a spectrum that falls with frequency, edges, and the three
channels mostly in common. Knows nothing of models.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_JPEG_QUALITY = 90
MIXED_SIZES = ((370, 360), (760, 380), (380, 740), (1100, 380), (764, 740), (1140, 760), (760, 1120), (1150, 1130))
"""(width, height) in pixels; grids 1x1, 2x1, 1x2, 3x1, 2x2, 3x2, 2x3 and 3x3 of 384 px tiles."""
MEGAPIXEL_SIZES = ((1155, 866), (866, 1155), (1225, 816), (1000, 1000), (1333, 750))
"""4:3, 3:4, 3:2, square and 16:9 of one megapixel."""


def photographs(num_images: int, sizes: Sequence[tuple[int, int]], *, seed: int) -> list[bytes]:
    """JPEG files, the sizes in turn."""
    return [
        photograph(*sizes[index % len(sizes)], generator=np.random.default_rng([seed, index]))
        for index in range(num_images)
    ]


def photograph(width_px: int, height_px: int, *, generator: np.random.Generator) -> bytes:
    """A JPEG of clouds of every size, the larger the stronger, behind some dozen flat shapes with sharp edges."""
    shading = sum(_clouds(width_px, height_px, cell_px, generator) for cell_px in (256, 128, 64, 32, 16, 8, 4, 2))
    tint = sum(_clouds(width_px, height_px, cell_px, generator, channels=3) for cell_px in (256, 64))
    levels = np.clip(128 + 38 * shading + 20 * tint, 0, 255).astype(np.uint8)
    image = _with_shapes(Image.fromarray(levels), generator)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _clouds(
    width_px: int, height_px: int, cell_px: int, generator: np.random.Generator, *, channels: int = 1
) -> np.ndarray:
    """Smooth noise [H, W, channels] of one size of detail, its contrast growing with the root of that size.

    Contrast that is the same at all sizes (a spectrum of 1/f, Field 1987) is that of a picture in focus everywhere.
    """
    cells = (height_px // cell_px + 2, width_px // cell_px + 2, channels)
    noise = generator.normal(0.0, (cell_px / 64) ** 0.5, cells).astype(np.float32)
    bands = [
        Image.fromarray(noise[..., channel]).resize((width_px, height_px), Image.Resampling.BICUBIC)
        for channel in range(channels)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _with_shapes(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(16):
        left, top = generator.integers(0, image.width), generator.integers(0, image.height)
        width, height = generator.integers(8, image.width // 4), generator.integers(8, image.height // 4)
        color = (*(int(level) for level in generator.integers(0, 256, 3)), 160)
        box = (int(left), int(top), int(left + width), int(top + height))
        (draw.rectangle if generator.random() < 0.5 else draw.ellipse)(box, fill=color)
    return image
