"""`labelmill report`: an output -> a page to look at, and where it lies, printed."""

from rich.console import Console

from jobs.exit_codes import EXIT_DONE
from pipeline.report.page import write_report
from pipeline.storage import canonical_uri, shown_uri


def report_output(output: str, *, out: str | None, max_images: int) -> int:
    """Returns 0; an output without a run raises ValueError."""
    written = write_report(output, out=canonical_uri(out) if out else None, max_images=max_images)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{written.num_rows} rows counted, {written.num_cards} samples in the gallery", end="")
    console.print(f", {written.num_without_picture} without a picture" if written.num_without_picture else "")
    console.print(f"report: {written.num_bytes} bytes in {shown_uri(written.uri).removeprefix('file://')}")
    return EXIT_DONE
