"""Images of earlier runs that the source no longer has, kept beside the manifest, by shard.

    <output>/_run/absent/shard-NNNNN.parquet   their ids and whether they are gone or have changed

Their labels stay in the dataset and are marked there. What is absent is found while the source is listed, and only
where that came to its end.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.parquet_members import open_table
from pipeline.storage import join_uri, open_store
from schemas.tables import CHANGED, GONE, PRESENT, SOURCE_STATE

_SCHEMA = pa.schema([pa.field("sample_id", pa.string()), SOURCE_STATE])
_ID_BYTES = 16
_STATES = (CHANGED, GONE)


@dataclass(frozen=True, kw_only=True)
class ShardAbsences:
    """What `run.json` keeps of one shard: how many, and the hash of the list."""

    sha256: str
    num_changed: int
    num_gone: int


class FoundAbsent:
    """Collects them, seventeen bytes for each."""

    def __init__(self) -> None:
        self._by_shard: defaultdict[str, bytearray] = defaultdict(bytearray)

    def add(self, shard: str, sample_id: str, state: str) -> None:
        self._by_shard[shard] += bytes.fromhex(sample_id) + bytes([_STATES.index(state)])

    @property
    def shards(self) -> list[str]:
        return sorted(self._by_shard)

    def table(self, shard: str) -> pa.Table:
        packed, step = bytes(self._by_shard[shard]), _ID_BYTES + 1
        ids = [packed[at : at + _ID_BYTES].hex() for at in range(0, len(packed), step)]
        states = [_STATES[code] for code in packed[_ID_BYTES::step]]
        return pa.table([ids, states], schema=_SCHEMA).sort_by("sample_id")


def put_absent(folder_uri: str, found: FoundAbsent, earlier: Mapping[str, ShardAbsences]) -> dict[str, ShardAbsences]:
    """Writes the lists that have changed, removes those that are empty now.

    Args:
        earlier: by shard, what is there.
    """
    store, now = open_store(folder_uri), {}
    for shard in found.shards:
        table, buffer = found.table(shard), io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        counts = Counter(table[SOURCE_STATE.name].to_pylist())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        now[shard] = ShardAbsences(sha256=digest, num_changed=counts[CHANGED], num_gone=counts[GONE])
        if earlier.get(shard) != now[shard]:
            store.put(join_uri(folder_uri, shard), buffer.getvalue())
    for shard in earlier.keys() - now.keys():
        store.delete(join_uri(folder_uri, shard))
    return now


def source_states(folder_uri: str, shard: str, sample_ids: pa.Array) -> pa.Array:
    """(N,) of the shard's images, in its order, what `SOURCE_STATE` says.

    Raises StorageError where the shard has no list; ask only for those that have.
    """
    with open_table(join_uri(folder_uri, shard)) as file:
        listed = file.read(use_threads=False)
    places = pc.index_in(sample_ids, value_set=listed["sample_id"].combine_chunks())
    return listed[SOURCE_STATE.name].combine_chunks().take(places).fill_null(PRESENT)
