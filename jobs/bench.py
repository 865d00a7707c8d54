"""`labelmill bench`: how fast the engine is on this machine, printed and written as JSON."""

from collections.abc import Mapping
from typing import Any

import typer

from jobs.exit_codes import EXIT_DONE
from model.bench.report import print_report
from model.bench.settings import BenchSettings


def bench_engine(options: Mapping[str, Any]) -> int:
    """Returns the exit code. Options are the fields of `BenchSettings`; None stands for what suits the device.

    Raises typer.BadParameter for what cannot be measured as asked.
    """
    try:
        settings = BenchSettings.with_defaults(**options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    print_report(settings)
    return EXIT_DONE
