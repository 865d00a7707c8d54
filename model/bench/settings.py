"""What is to be measured and how, checked before anything is built."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.checkpoint_files import NANO
from model.variants import VARIANTS

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    checkpoint: str
    """One of `VARIANTS`, with random weights, or whatever `model.checkpoint_files.local_folder` takes."""
    device: str
    dtype: str
    batch: int
    """Sequences that run at once."""
    output_tokens: int
    """Of every prompt; exactly so many, an end of sentence is ignored."""
    repeats: int
    json_path: Path | None = None
    profile_folder: Path | None = None
    max_memory_gb: float | None = None
    """Device memory of the whole process, in 10^9 bytes."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the option of the command, for whatever cannot be measured as asked."""
        _require(self.dtype in DTYPES, "--dtype", self.dtype, " or ".join(DTYPES))
        for option, value, minimum in (
            ("--batch", self.batch, 1),
            ("--output-tokens", self.output_tokens, 2),
            ("--repeats", self.repeats, 1),
        ):
            _require(value >= minimum, option, value, f"at least {minimum}")
        _check_device(self.device)
        _check_checkpoint(self.checkpoint)
        if self.json_path is not None:
            ok = self.json_path.parent.is_dir() and not self.json_path.is_dir()
            _require(ok, "--json", str(self.json_path), "a file in a folder that exists")
        if self.profile_folder is not None:
            ok = self.profile_folder.is_dir() if self.profile_folder.exists() else self.profile_folder.parent.is_dir()
            _require(ok, "--profile", str(self.profile_folder), "a folder, or a new one in a folder that exists")
        if self.max_memory_gb is not None:
            _require(self.device != "cpu", "--max-memory-gb", self.max_memory_gb, "left out on a CPU: it is for cuda")
            _require(self.max_memory_gb > 0, "--max-memory-gb", self.max_memory_gb, "over 0")

    @classmethod
    def with_defaults(cls, *, device: str | None = None, **given: Any) -> "BenchSettings":
        """Fills in what is None or not given by what suits the device: a GPU where there is one."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device.startswith("cuda"):
            defaults = {"checkpoint": "small", "dtype": "bfloat16", "batch": 256, "output_tokens": 200}
        else:
            defaults = {"checkpoint": NANO, "dtype": "float32", "batch": 4, "output_tokens": 32}
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(device=device, **{"repeats": 3, **defaults, **chosen})

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def as_json(self) -> dict[str, Any]:
        paths = ("json_path", "profile_folder")
        return {name: value for name, value in asdict(self).items() if name not in paths}


def _check_device(device: str) -> None:
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    _require(match is not None, "--device", device, "cpu, cuda or cuda:N")
    if match is not None and device != "cpu":
        num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = f"one of the {num_devices} CUDA devices that torch finds here"
        _require(int(match[1] or 0) < num_devices, "--device", device, found)


def _check_checkpoint(checkpoint: str) -> None:
    """What lies elsewhere (s3://, hub ids) is looked up when it is loaded."""
    names = (NANO, *VARIANTS)
    is_elsewhere = checkpoint.startswith("s3://") or re.fullmatch(r"\w[^/]*/[^/]+", checkpoint) is not None
    ok = checkpoint in names or Path(checkpoint).expanduser().is_dir() or is_elsewhere
    wanted = f"{', '.join(names)}, a checkpoint folder, an s3:// prefix or a hub id"
    _require(ok, "--checkpoint", checkpoint, wanted)


def _require(ok: bool, option: str, value: object, wanted: str) -> None:
    if not ok:
        raise ValueError(f"{option} is {value!r}, but must be {wanted}")
