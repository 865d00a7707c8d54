"""Several implementations of the same work, timed by turns -> medians, ratios, and a report of them.

Turns are interleaved (each side once, then each side again), so that whatever else the machine does in the meantime
meets all of them. Knows nothing of what is measured.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Units per second of one side, one value per turn."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"median {self.median:.4g}, {min(self.values):.4g} to {max(self.values):.4g} in {len(self.values)} turns"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast one side is as another.

    median: of the ratios of each turn, not the ratio of the medians: both sides of a turn met the same neighbours.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Rates, theirs: Rates) -> "Ratio":
        turns = [mine / other for mine, other in zip(ours.values, theirs.values, strict=True)]
        return cls(median=statistics.median(turns), low=min(turns), high=max(turns))

    def __str__(self) -> str:
        return f"{self.median:.2f}x, {self.low:.2f}x to {self.high:.2f}x"


def take_turns(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Rates]:
    """Calls every side once per turn, the order reversed in every other turn; each call returns units per second."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        names = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in names:
            values[name].append(sides[name]())
    return {name: Rates(values=tuple(rates)) for name, rates in values.items()}


def rate_of(num_units: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return num_units / (time.perf_counter() - start)


def compare(unit: str, rates: Mapping[str, Rates], *, ours: str) -> dict[str, Any]:
    """Prints the rates of all sides and how many times as fast `ours` is as each other; returns the same for JSON."""
    for name, side in rates.items():
        print(f"  {name:<32} {unit}: {side}")
    ratios = {name: Ratio.of(rates[ours], side) for name, side in rates.items() if name != ours}
    for name, ratio in ratios.items():
        print(f"  {ours} is {ratio} as fast as {name}")
    return {
        "unit": unit,
        "ours": ours,
        "rates": {name: {"median": side.median, "values": list(side.values)} for name, side in rates.items()},
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
    }


def machine(num_threads: int) -> dict[str, Any]:
    return {
        "processor": _processor_name(),
        "num_threads": num_threads,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def use_cpus(num_cpus: int) -> None:
    """Binds this process, and those it starts, to that many of its CPUs: helper threads of either side get no others.

    Raises ValueError where there are fewer.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= num_cpus <= len(allowed):
        raise ValueError(f"{num_cpus} CPUs are asked for, but this process may use {len(allowed)}")
    os.sched_setaffinity(0, allowed[:num_cpus])


def write_json(path: str | None, report: Mapping[str, Any]) -> None:
    if path is not None:
        Path(path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def print_setting(setting: Mapping[str, Any]) -> None:
    for name, value in setting.items():
        print(f"  {name:<32} {value}")


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
