"""Image tokens of tiles -> the sequence that one image contributes to the prompt (tile_tag "2D").

Global view and local mosaic are written row by row, each row closed by the newline embedding, with the separator
embedding between the two. Shapes: M = n*n image tokens of a tile, D language width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def lay_out_images(
    tokens_NMD: Tensor,
    grids: Sequence[tuple[int, int]],
    *,
    newline_D: Tensor,
    separator_D: Tensor,
    global_view_first: bool,
) -> Tensor:
    """Lays out all images of a prompt, in order.

    Args:
        tokens_NMD: image tokens of every tile, per image the global view and then its local tiles.
        grids: per image (tiles_wide, tiles_high); N = sum of 1 + wide * high.

    Returns: [sum of the images' token counts, D]; see `ProcessorConfig.num_image_tokens`.
    """
    counts = [1 + wide * high for wide, high in grids]
    assert sum(counts) == len(tokens_NMD), f"grids {list(grids)} need {sum(counts)} tiles, got {len(tokens_NMD)}"
    parts = [tokens_NMD.new_empty((0, tokens_NMD.shape[-1]))]
    for image_NMD, grid in zip(tokens_NMD.split(counts), grids, strict=True):
        global_view = _rows_with_newlines(image_NMD[:1], (1, 1), newline_D)
        local = _rows_with_newlines(image_NMD[1:], grid, newline_D)
        views = [global_view, separator_D[None], local]
        parts += views if global_view_first else views[::-1]
    return torch.cat(parts)


def _rows_with_newlines(tiles_NMD: Tensor, grid: tuple[int, int], newline_D: Tensor) -> Tensor:
    """Stitches tiles into their mosaic and closes every row of the mosaic (not of a tile) with a newline."""
    wide, high = grid
    n = round(tiles_NMD.shape[1] ** 0.5)
    mosaic = tiles_NMD.unflatten(0, (high, wide)).unflatten(2, (n, n))  # [high, wide, n, n, D]
    mosaic = mosaic.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [high*n, wide*n, D]
    newlines = newline_D.expand(mosaic.shape[0], 1, -1)
    return torch.cat([mosaic, newlines], dim=1).flatten(0, 1)
