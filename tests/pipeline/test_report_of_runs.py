"""The report of unfinished runs and of images that are gone; apart from Chromium, whose driver holds the event loop."""

from pipeline.commits import QUARANTINED
from pipeline.lease import hold_lease
from pipeline.report.page import write_report
from pipeline.storage import canonical_uri
from tests.pipeline.exported import ended, finished_output, label, put_pictures
from tests.pipeline.outputs import MISSING, commit, job_of, labelled, pending, resolve


def test_run_that_goes_on_is_told_from_its_commits_and_says_so(tmp_path):
    source = put_pictures(tmp_path / "in", ["tall.png", "tiny.png", "wide.webp"])
    work = resolve(job_of(source, tmp_path / "out"))
    first, second, _ = pending(work)
    with hold_lease(work.folder.lease_uri):
        commit(work, labelled(work, first, says="seen first"))
        commit(work, labelled(work, second, error=MISSING))
        written = write_report(work.folder.output_uri, out=canonical_uri(str(tmp_path / "page.html")))
    page = (tmp_path / "page.html").read_text()
    assert written.num_rows == 2
    assert "This run has not finished" in page
    assert "seen first" in page
    assert MISSING.message in page
    assert QUARANTINED in page


def test_image_that_is_gone_is_a_placeholder_with_the_reason(tmp_path):
    source = put_pictures(tmp_path / "in", ["tall.png", "tiny.png"])
    output = finished_output(
        source, tmp_path / "out", lambda row: [label("captions", caption="A red thing.", style="plain")]
    )
    ended(output, "captions")
    (tmp_path / "in/tall.png").unlink()
    written = write_report(output, out=canonical_uri(str(tmp_path / "page.html")))
    assert (written.num_cards, written.num_without_picture) == (2, 1)
    assert "tall.png: no such file" in (tmp_path / "page.html").read_text()
