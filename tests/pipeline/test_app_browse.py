"""An output is read page by page: every row once, in order, whatever the filter, and never all of it at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.app import browse
from pipeline.app.browse import Filter, OutputReader, Place
from schemas.errors import ErrorKind, RowError
from schemas.rows import ImageRow, Label
from tests.pipeline.exported import PICTURES, finished_output, label, name_of, put_pictures

PER_PICTURE = 60
"""Rows, so that the table has more than two batches."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutputReader]:
    folder = tmp_path_factory.mktemp("browse")
    output = finished_output(put_pictures(folder / "in"), folder / "out", labels_of, recipes=("ocr",))
    (folder / "in" / "tiny.png").unlink()
    (folder / "in" / "wide.webp").write_bytes((folder / "in" / "tall.png").read_bytes())
    opened = OutputReader(output)
    yield opened
    opened.close()


def labels_of(row: ImageRow) -> list[Label]:
    return [
        label("ocr", item=item, text=f"Line {item} of {name_of(row)}", flags=["rare"] if item == 7 else ())
        for item in range(PER_PICTURE)
    ]


def walked(reader: OutputReader, wanted: Filter, num_rows: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    place: Place | None = Place()
    while place is not None:
        page = reader.page("ocr", wanted, place, num_rows=num_rows)
        assert len(page.rows) <= num_rows
        found += [(row["sample_id"], row["item"]) for row in page.rows]
        place = page.next
    return found


@pytest.mark.parametrize("num_rows", [1, 7, 256, 1000])
def test_pages_give_every_row_once_in_the_table_s_order(reader: OutputReader, num_rows: int):
    rows = walked(reader, Filter(), num_rows)
    assert len(rows) == len(set(rows)) == len(PICTURES) * PER_PICTURE
    assert rows == walked(reader, Filter(), 1000)


def test_filters_leave_what_fits_all_of_them(reader: OutputReader):
    assert len(walked(reader, Filter(flag="rare"), 2)) == len(PICTURES)
    assert len(walked(reader, Filter(text="LINE 3 OF"), 2)) == len(PICTURES)
    assert len(walked(reader, Filter(text="tall.png", flag="rare", recipe="ocr"), 2)) == 1
    assert walked(reader, Filter(recipe="caption"), 2) == []
    assert walked(reader, Filter(flag="rar"), 2) == []


def test_search_for_what_is_rare_stops_for_the_moment_and_goes_on(
    reader: OutputReader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(browse, "MAX_ROWS_READ", 256)
    page = reader.page("ocr", Filter(text="no such text"))
    assert (len(page.rows), page.num_read) == (0, 256)
    assert page.next == Place(part=0, row=256)
    assert len(walked(reader, Filter(flag="rare"), 2)) == len(PICTURES)


def test_table_that_is_not_there_is_named(reader: OutputReader):
    with pytest.raises(ValueError, match="no table 'captions'"):
        reader.page("captions", Filter())


def test_quarantine_of_a_run_without_errors_is_empty(reader: OutputReader):
    assert "quarantine" in reader.tables
    assert reader.page("quarantine", Filter(flag="missing")).rows == []


def picture_of(reader: OutputReader, name: str) -> list[browse.Preview] | RowError:
    row = reader.page("ocr", Filter(text=f"of {name}"), num_rows=1).rows[0]
    return reader.pictures(row["sample_id"], sha256=row["image_sha256"])


def test_picture_is_upright_and_in_its_own_size(reader: OutputReader):
    (picture,) = picture_of(reader, "a/Photo One.JPG")
    assert (picture.width_px, picture.height_px) == (160, 120)
    assert picture.pixels.shape == (120, 160, 3)


def test_picture_that_has_gone_or_changed_is_an_error_and_not_another_picture(reader: OutputReader):
    gone, changed = picture_of(reader, "tiny.png"), picture_of(reader, "wide.webp")
    assert isinstance(gone, RowError)
    assert gone.kind is ErrorKind.MISSING
    assert isinstance(changed, RowError)
    assert changed.kind is ErrorKind.CHANGED
    assert isinstance(reader.pictures("0" * 32), RowError)


def test_output_that_is_not_there_cannot_be_opened(tmp_path: Path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        OutputReader(str(tmp_path / "none"))
