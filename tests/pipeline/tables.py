"""Parquet tables and source specs for the tests of listing and fetching."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.list_source import SourceColumns, open_source
from pipeline.storage import join_uri, open_store
from schemas.job import SourceSpec

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The way the `datasets` library writes images."""


def put_table(folder_uri, name, columns, schema=None, **options):
    """Writes one Parquet file through the store, and gives its URI."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, **options)
    return put_bytes(folder_uri, name, sink.getvalue())


def put_bytes(folder_uri, name, data):
    """Writes one file through the store, and gives its URI."""
    uri = join_uri(folder_uri, name)
    open_store(uri).put(uri, data)
    return uri


def carried_by(row):
    """The columns that a row carries along."""
    (record,) = pa.ipc.open_stream(row.carried).read_all().to_pylist()
    return record


def source_at(uri, *, columns=None, **spec):
    return open_source(SourceSpec(uri=str(uri), **spec), SourceColumns(**(columns or {})))


def rows_at(uri, **options):
    return list(source_at(uri, **options).rows())
