"""Encoded image bytes -> tiles, in a child process that may crash, hang or run out of memory without harm.

Does not know what an image is: the child (`pipeline.decode_child`) does. What bounds the child is in
`pipeline.child_process`.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.child_process import ChildProcess, Sandbox, SandboxError
from pipeline.decode_child import REQUEST_HEADER, DecodeSettings, PreparedImage
from pipeline.metadata import is_metadata
from schemas.rows import Mark

__all__ = ["DecodeSandbox", "SandboxError"]


class DecodeSandbox:
    """One child that decodes, see `Sandbox`. For one thread at a time."""

    def __init__(self, settings: DecodeSettings, *, child_module: str = "pipeline.decode_child") -> None:
        """`child_module` is what the child runs: a module that calls `pipeline.decode_child.run`."""
        self._sandbox = Sandbox(lambda: _ImageChild(settings, child_module))

    def prepare(self, encoded: bytes, *, dynamic: bool = True, marks: Sequence[Mark] = ()) -> PreparedImage:
        """Decodes and tiles one image file; the rest as for `pipeline.decode_child.prepare_image`.

        Raises:
            RowFailure: what `pipeline.decode_child.prepare_image` raises, or what `Sandbox.ask` does.
            SandboxError: as `Sandbox.ask`.
        """
        return self._sandbox.ask(lambda child: child.ask(encoded, dynamic, marks))

    def close(self) -> None:
        """Ends the child. The next image starts another one."""
        self._sandbox.close()


class _ImageChild(ChildProcess):
    what = "decoding and tiling"

    def __init__(self, settings: DecodeSettings, module: str) -> None:
        self._settings = settings
        super().__init__(settings, module)

    def ask(self, encoded: bytes, dynamic: bool, marks: Sequence[Mark]) -> PreparedImage:
        def messages(deadline_s: float) -> PreparedImage:
            of_marks = json.dumps([dataclasses.asdict(mark) for mark in marks]).encode() if marks else b""
            self._send(REQUEST_HEADER.pack(len(encoded), dynamic, len(of_marks)) + of_marks, deadline_s)
            self._send(encoded, deadline_s)
            fields = self._receive_fields(deadline_s)
            return self._receive_image(fields, dynamic, len(marks), deadline_s)

        return self.exchange(messages)

    def _receive_image(self, fields: dict[str, Any], dynamic: bool, num_marks: int, deadline_s: float) -> PreparedImage:
        width, height = (int(side) for side in fields["size"])
        if not (width > 0 and height > 0 and width * height <= self._settings.max_pixels):
            raise ValueError(f"a size of {width}x{height} pixels")
        grid = self._grid(fields["grid"], dynamic)
        marked_grids = tuple(self._grid(of_one, True) for of_one in fields["marked_grids"])
        if len(marked_grids) != num_marks:
            raise ValueError(f"{len(marked_grids)} pictures with marks")
        if not is_metadata(fields["metadata"]):
            raise ValueError("metadata that is none")
        side = self._settings.candidate_resolutions[0][0]
        grids = () if self._settings.headers_only else (grid, *marked_grids)
        num_tiles = sum(1 + wide * high for wide, high in grids)
        tiles = np.empty((num_tiles, side, side, 3), dtype=np.uint8)
        self._receive_into(tiles.reshape(-1).data, deadline_s)
        return PreparedImage(
            size=(width, height),
            grid=grid,
            flags=tuple(str(flag) for flag in fields["flags"]),
            metadata=tuple((name, value) for name, value in fields["metadata"]),
            marked_grids=marked_grids,
            tiles=tiles,
        )

    def _grid(self, grid: Any, dynamic: bool) -> tuple[int, int]:
        tiles_wide, tiles_high = (int(count) for count in grid)
        side = self._settings.candidate_resolutions[0][0]
        candidates = self._settings.candidate_resolutions if dynamic else ((side, side),)
        if (tiles_wide * side, tiles_high * side) not in candidates:
            raise ValueError(f"a grid of {tiles_wide}x{tiles_high} tiles")
        return tiles_wide, tiles_high
