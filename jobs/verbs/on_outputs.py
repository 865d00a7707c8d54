"""Verbs that take the output of a job."""

from typing import Annotated, Literal

import typer

from jobs.verbs.options import Output, SummaryAsJson


def verify(
    output: Output,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on the last line.")] = False,
) -> None:
    """Check that every input of a finished job is accounted for exactly once per recipe."""
    from jobs.verify import verify_output

    raise typer.Exit(verify_output(output, as_json=json))


def status(
    output: Output,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run until it ends; then end with its exit code.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON on the last line.")] = False,
) -> None:
    """Show how far a running, dead or finished job is, from its files alone."""
    from jobs.status import print_status
    from jobs.watch import watch_run

    code = watch_run(output) if watch else 0
    print_status(output, as_json=json)
    raise typer.Exit(code)


def retry(
    output: Output,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only images that failed with this kind of error, e.g. too_many_pixels; may be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="a.b=value", help="Override a value of the job, e.g. limits.max_bytes=1000000000."
        ),
    ] = None,
    json: SummaryAsJson = False,
) -> None:
    """Label the images in quarantine once more, with the output's own job; the source is not listed again."""
    from jobs.retry import retry_output

    raise typer.Exit(retry_output(output, kinds=kind or [], overrides=set_ or [], as_json=json))


def export(
    output: Output,
    to: Annotated[
        Literal["llava", "messages", "coco", "webdataset", "parquet-with-images"], typer.Option(help="The form.")
    ],
    out: Annotated[str | None, typer.Option(help="Folder or s3:// prefix; by default OUTPUT/exports/FORM.")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Only this table; may be repeated. By default all that fit the form.")
    ] = None,
    without_flags: Annotated[
        list[str] | None,
        typer.Option(help="Leave out rows with this flag, or one of a,b,c; may be repeated.", metavar="FLAG"),
    ] = None,
    images: Annotated[
        Literal["copy", "none"],
        typer.Option(help="Copy the images, upright; or name them where they are."),
    ] = "copy",
    json: SummaryAsJson = False,
) -> None:
    """Write a finished job's labels and images in a form that training code reads."""
    from jobs.export import export_output

    code = export_output(
        output,
        to=to,
        out=out,
        tables=table or [],
        without_flags=[flag.strip() for given in without_flags or [] for flag in given.split(",") if flag.strip()],
        copy_images=images == "copy",
        as_json=json,
    )
    raise typer.Exit(code)


def report(
    output: Output,
    out: Annotated[str | None, typer.Option(help="The HTML file; by default OUTPUT/_run/report.html.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Show at most this many samples in the gallery.")] = 120,
) -> None:
    """Write one HTML file that shows what a running or finished job did: counts, plots, labels on their images."""
    from jobs.report import report_output

    raise typer.Exit(report_output(output, out=out, max_images=images))
