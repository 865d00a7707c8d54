"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(help="The job file.", metavar="JOB.yaml")]
Output = Annotated[str, typer.Argument(help="The output of a job: a folder or an s3:// prefix.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=value", help="Override a value of the job file; may be repeated."),
]
SummaryAsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on the last line.")]
