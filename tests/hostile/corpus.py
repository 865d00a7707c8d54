"""A seed -> image files as the web has them: cut off, damaged, lying about their size, full of absurd metadata."""

from collections.abc import Iterator

import numpy as np

from tests.hostile import bombs, damage, oddities
from tests.hostile.hostile_file import HostileFile


def hostile_files(*, seed: int = 0, num_variants: int = 12) -> Iterator[HostileFile]:
    """Some hundred files; `num_variants` of each that is cut off or damaged at random places."""
    generator = np.random.default_rng(seed)
    yield from damage.cut_off(num_variants)
    yield from damage.damaged(generator, num_variants)
    yield from damage.random_with_magic(generator, num_variants // 2)
    yield from damage.no_images(generator)
    yield from bombs.declared_bombs()
    yield from bombs.compressed_bombs()
    yield from bombs.metadata_bombs()
    yield from oddities.absurd_exif(generator, num_variants)
    yield from oddities.absurd_tiff_directories()
    yield from oddities.extreme_sides()
    yield from oddities.several_frames()
    yield from oddities.odd_modes()
    yield from oddities.odd_palettes()
