"""This machine's own rates, by measuring: how fast its memory copies and how fast it multiplies, and what it is."""

import importlib.metadata
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.bench.roofline import MachineRates

_MIN_TIMED_S = 0.05
_ROUNDS = 10


def measure_rates(device: torch.device, dtype: torch.dtype) -> MachineRates:
    """Best of ten rounds each, because a ceiling is what is looked for."""
    return MachineRates(
        matmul_flops_per_s=_matmul_flops_per_s(device, dtype), copy_bytes_per_s=_copy_bytes_per_s(device)
    )


def describe(device: torch.device) -> dict[str, Any]:
    """Device, threads and versions: what a rate means nothing without."""
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "num_threads": torch.get_num_threads(),
        "versions": {
            "labelmill": _version("labelmill"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": _version("triton"),
        },
    }


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _copy_bytes_per_s(device: torch.device) -> float:
    """Reads plus writes of a copy too large for any cache, a GPU's of some 50 MB included."""
    num_bytes = 2**28
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes * _calls_per_s(device, lambda: target.copy_(source))


def _matmul_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 * _calls_per_s(device, lambda: torch.mm(left, right, out=product))


def _calls_per_s(device: torch.device, call: Callable[[], object]) -> float:
    call()
    num_calls, best_s = 1, float("inf")
    rounds = 0
    while rounds < _ROUNDS:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(num_calls):
            call()
        synchronize(device)
        elapsed_s = time.perf_counter() - start
        if elapsed_s < _MIN_TIMED_S:
            num_calls *= 2
            continue
        rounds += 1
        best_s = min(best_s, elapsed_s / num_calls)
    return 1 / best_s


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} CPU"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
