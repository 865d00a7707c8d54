"""The parts of a table are found by their names, and read from any row on."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet_members import open_table
from pipeline.table_parts import TableParts, batches_from, part_name, read_parts

NUM_ROWS = 10


def put_part(folder, name, rows=range(NUM_ROWS), **how):
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"row": list(rows), "twice": [2 * row for row in rows]})
    pq.write_table(table, folder / name, **how)


def rows_of(batches):
    return [row for batch in batches for row in batch.column("row").to_pylist()]


def test_parts_of_one_table_are_read_in_order_whatever_lies_beside_them(tmp_path):
    for index in range(3):
        put_part(tmp_path / "ocr", part_name(index, 3), [index])
    put_part(tmp_path / "ocr", "mine.parquet", [99])
    parts = TableParts.at(str(tmp_path), "ocr")
    assert parts.are_whole
    assert parts.strangers == ["mine.parquet"]
    batches = list(read_parts(parts.uris, columns=["row"]))
    assert rows_of(batches) == [0, 1, 2]
    assert batches[0].schema.names == ["row"]
    assert list(parts.problems()) == ["table ocr: mine.parquet is not a part that a run wrote: move it elsewhere"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "its parts are of 0"),
        ([(1, 2)], "part 0 of 0..1 is missing"),
        ([(0, 1), (0, 2), (1, 2)], "its parts are of 1 and of 2"),
    ],
)
def test_parts_that_are_not_one_whole_table_say_why(tmp_path, names, problem):
    for index, total in names:
        put_part(tmp_path / "ocr", part_name(index, total))
    parts = TableParts.at(str(tmp_path), "ocr")
    assert not parts.are_whole
    assert [problem in said for said in parts.problems()] == [True]


@pytest.mark.parametrize("first", range(NUM_ROWS + 1))
def test_file_is_read_from_any_row_on_across_its_row_groups(tmp_path, first):
    put_part(tmp_path, "some.parquet", row_group_size=4)
    with open_table(str(tmp_path / "some.parquet")) as file:
        found = list(batches_from(file, first, batch_rows=3))
    assert rows_of(batch for _, batch in found) == list(range(first, NUM_ROWS))
    assert [row for row, _ in found] == [batch.column("row")[0].as_py() for _, batch in found]
