"""The `labelmill` command: its verbs, and the one place where errors become a line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or job file, 3 done but too much quarantined, 4 a budget
is spent and images are pending, 130 interrupted and resumable.
"""

import signal
import sys
from types import FrameType

import typer

from jobs.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from jobs.verbs import on_checkpoints, on_jobs, on_outputs

app = typer.Typer(
    name="labelmill",
    help="Turns image collections into training data: captions, OCR text, answers and boxes, in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    on_jobs.demo,
    on_jobs.run,
    on_jobs.submit,
    on_jobs.manifest,
    on_jobs.plan,
    on_checkpoints.label,
    on_outputs.verify,
    on_outputs.status,
    on_outputs.retry,
    on_outputs.export,
    on_outputs.report,
    on_checkpoints.bench,
):
    app.command()(verb)
app.command(name="app")(on_checkpoints.app_)
app.add_typer(on_checkpoints.recipes, name="recipes")


def main() -> None:
    """Entry point of the console script."""
    from schemas.job import JobError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except JobError as error:
        _complain(*(str(problem) for problem in error.problems))
        code = EXIT_USAGE
    except typer.TyperException as error:
        if message := error.format_message():  # without one, the help was asked for by giving no command
            _complain(f"{message} (labelmill --help lists the commands, COMMAND --help the options)")
        code = EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except (ValueError, RuntimeError, OSError) as error:
        _complain(" ".join(str(error).split()) or type(error).__name__)
        code = EXIT_FAILED
    if code == EXIT_INTERRUPTED:  # typer, too, turns Ctrl-C into this code, without a word
        _complain("interrupted; what was committed is kept: run the same command again to go on")
    sys.exit(code)


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"labelmill: {line}", file=sys.stderr)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """A SIGTERM ends a run as Ctrl-C does: unwinding closes the cluster."""
    raise KeyboardInterrupt
