import io
import os
import pickle
import subprocess
import threading
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from pipeline import local
from pipeline.fetch import FetchImage
from pipeline.list_source import SourceColumns, open_source
from pipeline.manifest import image_rows, read_shard, write_manifest
from pipeline.new_rows import NewRows
from pipeline.patience import Patience
from pipeline.pdf_pages import PdfPages
from pipeline.pdf_protocol import MAX_PAGES, PAGE_SCALED, PdfSettings
from pipeline.prepare import TileImage
from pipeline.storage import StorageError, open_store
from schemas.errors import ErrorKind
from schemas.job import JobError, LimitsSpec, SourceSpec, load_job
from schemas.rows import rows_of, to_columns
from tests.pipeline.pdfs import ENCRYPTED, INCH, Page, Pdf, grey_pages
from tests.pipeline.tables import carried_by, put_bytes, rows_at, source_at

SETTINGS = PdfSettings(dpi=72, max_pixels=10**6, timeout_s=60, memory_mb=1024)


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    return request.getfixturevalue("bucket") + "/papers" if request.param == "s3" else str(tmp_path / "papers")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "papers")


def limited_source(uri, **limits):
    return open_source(SourceSpec(uri=uri), SourceColumns(), limits=LimitsSpec(**limits))


def listed(uri, tmp_path):
    manifest = write_manifest(source_at(uri), str(tmp_path / "manifest"), limit=None)
    return [
        row
        for name in manifest.shards
        for batch in read_shard(str(tmp_path / "manifest" / name))
        for row in image_rows(batch, manifest_shard=name, recipes=[("ocr",)] * batch.num_rows)
    ]


def fetcher():
    return FetchImage(max_bytes=10**7, image_column=None, pdf=SETTINGS)


def level_of(encoded):
    """The grey of a page of `grey_pages`: its number."""
    return int(np.asarray(Image.open(io.BytesIO(encoded)))[0, 0])


def fetch(rows):
    """Each row and the level of its page; None without one."""
    with closing(fetcher()) as stage:
        block = stage(to_columns(rows))
    pages = [level_of(encoded[0]) if encoded else None for encoded in block["encoded"]]
    return list(zip(rows_of(block), pages, strict=True))


def num_children():
    """Processes for documents that this one has started and not waited for."""
    found = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return sum("pipeline.pdf_child" in line for line in found.stdout.splitlines())


def test_every_page_is_a_row(folder_uri, tmp_path):
    put_bytes(folder_uri, "a.pdf", grey_pages(3))
    last = put_bytes(folder_uri, "deep/b.PDF", grey_pages(12))
    put_bytes(folder_uri, "notes.txt", b"x")
    source = source_at(folder_uri)
    rows = list(source.rows())
    assert [row.image_uri for row in rows[:4]] == [
        *(f"{folder_uri}/a.pdf#page={n}" for n in (1, 2, 3)),
        f"{last}#page=1",
    ]
    assert (len(rows), source.num_ignored) == (15, 1)
    assert carried_by(rows[4]) == {"pdf": "b.PDF", "page": 2, "num_pages": 12}
    assert rows[4].images[0].version == open_store(last).head(last).version
    assert (rows[14].place, rows[14].images[0].member) == (f"{last}#12", "page:12")
    assert [level for _, level in fetch(listed(folder_uri, tmp_path))] == [1, 2, 3, *range(1, 13)]


def test_columns_to_carry_are_chosen_and_no_others_are_there(folder):
    uri = put_bytes(folder, "a.pdf", grey_pages(1))
    assert carried_by(rows_at(uri, carry=["page"])[0]) == {"page": 1}
    assert rows_at(uri, carry=[])[0].carried == b""
    with pytest.raises(ValueError, match="have no column 'title'; they have pdf, page, num_pages"):
        source_at(uri, carry=["title"])
    with pytest.raises(ValueError, match="no columns that a recipe could read"):
        source_at(uri, columns={"questions": "page"})


FILES = {
    "encrypted": (Pdf(pages=[Page()], trailer=ENCRYPTED).encoded(), ErrorKind.UNREADABLE, "needs a password"),
    "nothing": (b"", ErrorKind.EMPTY, "no bytes"),
    "no pages": (Pdf(pages=[]).encoded(), ErrorKind.UNREADABLE, "no pages"),
    "page": (b"<html>404</html>", ErrorKind.UNREADABLE, "no PDF document"),
    "too many pages": (Pdf(pages=[Page()], count=MAX_PAGES + 1).encoded(), ErrorKind.BAD_SAMPLE, "100001 pages"),
    "too large": (grey_pages(200), ErrorKind.TOO_MANY_BYTES, "limits.max_bytes = 20000"),
}


def test_files_that_cannot_be_read_as_documents_are_one_row_each_with_the_reason(folder):
    for name, (data, _, _) in FILES.items():
        put_bytes(folder, f"{name}.pdf", data)
    put_bytes(folder, "whole.pdf", grey_pages(2))
    rows = {row.place.removeprefix(f"{folder}/"): row for row in limited_source(folder, max_bytes=20_000).rows()}
    assert sorted(rows) == sorted([*(f"{name}.pdf#0" for name in FILES), "whole.pdf#1", "whole.pdf#2"])
    for name, (_, kind, words) in FILES.items():
        error = rows[f"{name}.pdf#0"].error
        assert (name, error.kind) == (name, kind)
        assert words in error.message
        assert f"{name}.pdf" in error.message
    assert carried_by(rows["page.pdf#0"]) == {"pdf": "page.pdf", "page": None, "num_pages": None}


def test_document_that_can_be_read_at_last_gives_its_pages_as_new_rows(folder, tmp_path):
    uri = put_bytes(folder, "a.pdf", grey_pages(30))
    known = write_manifest(limited_source(folder, max_bytes=1000), str(tmp_path / "manifest"), limit=None)
    runs = [[str(tmp_path / "manifest" / name) for name in known.shards]]
    assert known.num_images == 1
    assert list(NewRows(limited_source(folder, max_bytes=1000), runs).rows()) == []
    assert [row.place for row in NewRows(source_at(uri), runs).rows()] == [f"{uri}#{n}" for n in range(1, 31)]


def test_images_beside_documents_are_told(folder):
    put_bytes(folder, "a.jpg", b"x")
    put_bytes(folder, "b.pdf", grey_pages(1))
    with pytest.raises(ValueError, match="both images and PDF files .*set source.format to images or pdf"):
        rows_at(folder)
    assert len(rows_at(folder, format="pdf")) == 1


def test_listing_that_is_left_early_leaves_no_process(folder):
    for number in range(6):
        put_bytes(folder, f"{number}.pdf", grey_pages(2))
    rows = source_at(folder).rows()
    assert next(rows).place == f"{folder}/0.pdf#1"
    rows.close()
    assert num_children() == 0


def test_document_is_fetched_once_for_the_pages_of_several_blocks(folder, tmp_path, monkeypatch):
    uri = put_bytes(folder, "a.pdf", grey_pages(40))
    rows = listed(uri, tmp_path)
    asked, original = [], local.LocalStore.get

    def get(store, uri, **options):
        asked.append(uri)
        return original(store, uri, **options)

    monkeypatch.setattr(local.LocalStore, "get", get)
    levels = []
    with closing(fetcher()) as stage:
        for first in range(0, 40, 16):
            levels += [level_of(encoded) for (encoded,) in stage(to_columns(rows[first : first + 16]))["encoded"]]
    assert levels == list(range(1, 41))
    assert asked == [uri]
    assert num_children() == 0


def test_several_processes_share_the_pages_of_a_document(folder):
    uri = put_bytes(folder, "a.pdf", grey_pages(9))
    pages = PdfPages(SETTINGS, max_bytes=10**6, patience=Patience(store_s=0), num_processes=3)
    pages = pickle.loads(pickle.dumps(pages))
    pages.open()
    levels = {}

    def read(page):
        levels[page] = level_of(pages.read(uri, version="", page=page).encoded)

    with closing(pages):
        threads = [threading.Thread(target=read, args=(page,)) for page in range(1, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert levels == {page: page for page in range(1, 10)}
    assert num_children() == 0


def test_document_that_changed_or_is_gone_costs_its_pages(folder_uri, tmp_path):
    uris = [put_bytes(folder_uri, f"{number}.pdf", grey_pages(2)) for number in range(3)]
    rows = listed(folder_uri, tmp_path)
    put_bytes(folder_uri, "1.pdf", grey_pages(3))
    open_store(uris[2]).delete(uris[2])
    fetched = fetch(rows)
    kinds = [row.error and row.error.kind for row, _ in fetched]
    assert kinds == [None, None, *[ErrorKind.CHANGED] * 2, *[ErrorKind.MISSING] * 2]
    assert [level for _, level in fetched] == [1, 2, None, None, None, None]


def test_scaled_page_is_flagged_and_tiled_as_any_image(folder, tmp_path):
    uri = put_bytes(folder, "a.pdf", Pdf(pages=[Page(width_pt=7200, height_pt=3600), Page()]).encoded())
    with closing(fetcher()) as stage:
        block = stage(to_columns(listed(uri, tmp_path)))
    with closing(TileImage(candidate_resolutions=((28, 28), (56, 28)), max_pixels=10**6)) as tiler:
        rows = rows_of(tiler(block))
    assert [row.flags for row in rows] == [(PAGE_SCALED,), ()]
    assert (rows[0].tiles_wide, rows[0].tiles_high) == (2, 1)
    assert 0.99 * 10**6 < rows[0].width_px * rows[0].height_px <= 10**6
    assert (rows[1].width_px, rows[1].height_px) == (INCH, INCH)


def test_store_that_refuses_is_an_error_of_the_listing_and_no_row(bucket, monkeypatch):
    put_bytes(bucket, "a.pdf", grey_pages(1))
    source = source_at(bucket)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError):
        list(source.rows())


def test_job_may_set_the_dpi_and_name_no_column():
    job = "name: x\nsource: {uri: /x, format: pdf, pdf_dpi: 300}\nrecipes: [ocr]\noutput: /o\n"
    assert load_job(job).source.pdf_dpi == 300
    for wrong, words in [("pdf_dpi: 3000", "pdf_dpi"), ("allow_http: true", "the format is pdf")]:
        with pytest.raises(JobError, match=words):
            load_job(job.replace("pdf_dpi: 300", wrong))
