import random

import pytest

from pipeline.manifest import write_manifest
from pipeline.new_rows import NewRows, place_in_source
from pipeline.source import SourceRow
from schemas.rows import RowImage
from tests.pipeline.tables import put_table, source_at


class Listing:
    """A source of these rows."""

    carried_schema = image_column = None
    num_ignored = 0

    def __init__(self, *rows: SourceRow) -> None:
        self._rows = rows

    def rows(self):
        yield from self._rows


def file(name: str, version: str = "1") -> SourceRow:
    return SourceRow(images=(RowImage(uri=f"s3://b/{name}", version=version),))


class Manifests:
    """Manifests of one run after another."""

    def __init__(self, folder) -> None:
        self._folder, self.runs = str(folder), []

    def add(self, source) -> list[str]:
        first = sum(map(len, self.runs))
        added = write_manifest(
            NewRows(source, self.runs), self._folder, limit=None, rows_per_shard=3, first_shard=first
        )
        self.runs.append([f"{self._folder}/{shard}" for shard in added.shards])
        return [row.image_uri.rpartition("/")[2] for row in NewRows(source, self.runs[:-1]).rows()]


@pytest.fixture
def manifests(tmp_path):
    return Manifests(tmp_path / "manifest")


def test_only_new_images_are_listed(manifests):
    assert manifests.add(Listing(file("b"), file("d"))) == ["b", "d"]
    assert manifests.add(Listing(file("a"), file("b"), file("c"), file("d"), file("e"))) == ["a", "c", "e"]
    assert manifests.add(Listing(file("a"), file("b"), file("c"), file("d"), file("e"))) == []


def test_image_with_other_bytes_is_new_and_one_that_is_gone_disturbs_nothing(manifests):
    manifests.add(Listing(file("a"), file("b"), file("c")))
    assert manifests.add(Listing(file("a", "2"), file("c"), file("d"))) == ["a", "d"]
    assert manifests.add(Listing(file("a", "1"), file("a", "2"), file("b"), file("d"))) == []


def test_any_history_of_additions_lists_each_image_once(manifests):
    draw = random.Random(7)
    names = [f"{draw.randrange(10**6):06d}" for _ in range(60)]
    seen: set[str] = set()
    for _ in range(8):
        now = sorted(draw.sample(names, 40))
        assert manifests.add(Listing(*map(file, now))) == [name for name in now if name not in seen]
        seen |= set(now)


@pytest.mark.parametrize(
    "images", [[b"1", b"2", b"3"], ["x.jpg", "a.jpg", "x.jpg"], ["x.jpg", None, "a.jpg"]], ids=["bytes", "URIs", "null"]
)
def test_rows_of_tables_are_known_again_though_their_images_have_no_order(tmp_path, manifests, images):
    folder = tmp_path / "tables"
    folder.mkdir()
    put_table(str(folder), "b.parquet", {"image": images})
    assert len(manifests.add(source_at(str(folder)))) == 3
    assert manifests.add(source_at(str(folder))) == []
    put_table(str(folder), "a.parquet", {"image": images})
    assert len(manifests.add(source_at(str(folder)))) == 3


def test_rows_of_a_table_have_their_place_by_number_not_by_text():
    places = [place_in_source(f"t.parquet#{row}", f"t.parquet#{row}") for row in (2, 10, 100)]
    assert places == sorted(places) == [("t.parquet", 2), ("t.parquet", 10), ("t.parquet", 100)]
    assert place_in_source("t.parquet#7", "s3://elsewhere/x#1.jpg") == ("t.parquet", 7)
    assert place_in_source("", "s3://b/x#1.jpg") == ("s3://b/x#1.jpg", 0)


def test_source_out_of_order_is_refused_once_something_is_to_be_told_from_it(manifests):
    out_of_order = Listing(file("b"), file("a"))
    assert manifests.add(out_of_order) == ["b", "a"]
    with pytest.raises(ValueError, match=r"s3://b/a is listed after s3://b/b"):
        manifests.add(out_of_order)
