"""The report of unfinished runs and of images that are gone; apart from Chromium, whose driver holds the event loop."""

import re

from pipeline.commits import QUARANTINED
from pipeline.lease import hold_lease
from pipeline.ledger import RunFolder
from pipeline.report.page import write_report
from pipeline.storage import canonical_uri
from tests.pipeline.exported import ended, finished_output, label, put_pictures
from tests.pipeline.outputs import BUSY, MISSING, commit, job_of, labelled, pending, resolve


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


def test_only_the_outcome_that_counts_is_told_of_an_image_that_was_tried_again(tmp_path):
    source = put_pictures(tmp_path / "in", ["tall.png", "tiny.png"])
    job = job_of(source, tmp_path / "out", ["ocr", "caption"])
    first = resolve(job)
    with hold_lease(first.folder.lease_uri):
        commit(first, *(labelled(first, row, error=BUSY) for row in pending(first)))
        second = resolve(job, run=2)
        again, _ = pending(second)
        commit(second, labelled(second, again, says="seen at last"))
        written = write_report(first.folder.output_uri, out=canonical_uri(str(tmp_path / "page.html")))
    counts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", (tmp_path / "page.html").read_text()))
    assert (counts["label rows"], counts["quarantined pairs"]) == ("2", "2")
    assert written.num_rows == 4
    assert written.num_cards == 2
    assert "seen at last" in (tmp_path / "page.html").read_text()


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


def test_expert_load_is_drawn_for_each_layer_or_said_to_be_unknown(tmp_path):
    source = put_pictures(tmp_path / "in", ["tall.png"])
    output = finished_output(source, tmp_path / "out", lambda row: [label("captions", caption="Red.", style="plain")])
    ended(output, "captions")
    folder, written = RunFolder(canonical_uri(output)), tmp_path / "page.html"
    write_report(output, out=canonical_uri(str(written)))
    charts = re.findall(r"<figcaption>([^<]*)</figcaption>(.*?)</figure>", written.read_text(), re.DOTALL)
    drawn = dict(charts)["Expert load, busiest over mean"]
    assert re.findall(r'class="value">([^<]*)<', drawn) == ["1.5", "1.25"]
    assert "was not recorded by that run" not in written.read_text()

    summary = folder.get_json("summary.json")
    del summary["this_run"]["expert_imbalance"]
    folder.put_json("summary.json", summary)
    write_report(output, out=canonical_uri(str(written)))
    assert "How tokens were spread over the experts was not recorded by that run." in written.read_text()
    assert "Expert load, busiest" not in written.read_text()
