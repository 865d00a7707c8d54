"""The reference implementation as an object: methods here are requests to the process that runs it.

Knows the way to `reference_driver.py` and nothing of what it computes.
"""

import argparse
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

_DRIVER = Path(__file__).with_name("reference_driver.py")


class ReferenceProcess:
    """Starts the reference; leaving the context ends it."""

    def __init__(self, *, folder: str, python: str) -> None:
        """Raises ValueError where `folder` is no checkout of the reference."""
        if not (Path(folder) / "deepseek_vl2" / "models").is_dir():
            raise ValueError(f"{folder} holds no deepseek_vl2/models: clone github.com/deepseek-ai/DeepSeek-VL2 there")
        self._process = subprocess.Popen(
            [python, str(_DRIVER), str(Path(folder).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> Any:
        """Raises RuntimeError if the process ends instead of answering; it has said why on stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reference ended at {do!r} with exit code {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> "ReferenceProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", required=True, help="a checkout of github.com/deepseek-ai/DeepSeek-VL2")
    parser.add_argument("--python", required=True, help="an interpreter that can import it")
    parser.add_argument("--images", help="a folder of image files to use instead of pictures made from the seed")


def write_images(folder: Path, files: list[bytes]) -> list[str]:
    paths = [folder / f"{index:03}.jpg" for index in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def images_in(folder: str, num_images: int) -> list[str]:
    """The first files of a folder that are plain RGB and upright, in turn: the reference turns and blends nothing.

    Raises ValueError where there is none.
    """
    paths = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and _is_plain(path)]
    if not paths:
        raise ValueError(f"{folder} holds no RGB image that is stored upright")
    return [str(paths[index % len(paths)]) for index in range(num_images)]


def _is_plain(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
    except OSError:
        return False
