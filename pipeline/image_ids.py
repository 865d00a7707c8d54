"""The ids of all images of a manifest -> which of them stand in it twice, and in which shard each stands first.

Sixteen bytes for each image, twice that while they are sorted: 108 bits of its id and 20 of its shard's number. Nothing
else of `verify` grows with the images.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SHARD_BITS = np.uint64(20)
MAX_SHARDS = 1 << 20
_NO_DIGIT = 255
_DIGIT_VALUES = np.full(256, _NO_DIGIT, dtype=np.uint8)
_DIGIT_VALUES[list(b"0123456789abcdef")] = np.arange(16)


class ImageIds:
    """Sorted by id, then by shard."""

    def __init__(self, high: np.ndarray, low: np.ndarray) -> None:
        """high: the first 64 bits of each id; low: 44 more, then the shard's number."""
        order = np.lexsort((low, high))
        self._high = high[order]
        self._low = low[order]
        is_same = (self._high[1:] == self._high[:-1]) & (self._low[1:] >> _SHARD_BITS == self._low[:-1] >> _SHARD_BITS)
        starts = is_same & ~np.append(False, is_same[:-1])
        self._repeated = np.flatnonzero(starts)
        self._was_asked = np.zeros(len(self._repeated), dtype=bool)

    @classmethod
    def of(cls, shards: Iterable[pa.Array]) -> "ImageIds":
        """Args: shards: the sample ids of each manifest shard, in order."""
        high, low = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for place, sample_ids in enumerate(shards):
            assert place < MAX_SHARDS, "an id has room for the number of its shard"
            of_shard = id_bits(sample_ids)
            high.append(of_shard[:, 0].copy())
            low.append(of_shard[:, 1] >> _SHARD_BITS << _SHARD_BITS | np.uint64(place))
        all_high = np.concatenate(high)
        high.clear()
        return cls(all_high, np.concatenate(low))

    def shards_of(self, sample_ids: pa.Array) -> np.ndarray:
        """(ids,) the number of the first shard that holds each image; -1 where none does."""
        positions = self._find(sample_ids)
        shards = np.append(self._low, np.uint64(0))[positions] & np.uint64(MAX_SHARDS - 1)
        return np.where(positions < 0, -1, shards.astype(np.int64))

    def is_repeated(self, sample_ids: pa.Array) -> np.ndarray:
        """(ids,) whether an image was asked about before; ask about the manifest from its begin to its end."""
        repeated = np.zeros(len(sample_ids), dtype=bool)
        if not len(self._repeated):
            return repeated
        positions = self._find(sample_ids)
        groups = np.minimum(np.searchsorted(self._repeated, positions), len(self._repeated) - 1)
        for row in np.flatnonzero(self._repeated[groups] == positions):
            repeated[row] = self._was_asked[groups[row]]
            self._was_asked[groups[row]] = True
        return repeated

    def _find(self, sample_ids: pa.Array) -> np.ndarray:
        """(ids,) where each id stands first, or -1."""
        found = np.full(len(sample_ids), -1)
        if not len(self._high):
            return found
        bits = id_bits(sample_ids)
        high, low = bits[:, 0], bits[:, 1] >> _SHARD_BITS
        positions = np.searchsorted(self._high, high)
        left = np.arange(len(found))
        while len(left):  # once, but for two ids that share 64 bits
            left = left[positions[left] < len(self._high)]
            left = left[self._high[positions[left]] == high[left]]
            is_found = self._low[positions[left]] >> _SHARD_BITS == low[left]
            found[left[is_found]] = positions[left[is_found]]
            left = left[~is_found]
            positions[left] += 1
        return found


def id_bits(sample_ids: pa.Array) -> np.ndarray:
    """(ids, 2) uint64 of 32 hex digits each; of anything else (a damaged table may hold it) its hash."""
    is_proper = pc.fill_null(pc.equal(pc.binary_length(sample_ids), 32), False).to_numpy(zero_copy_only=False)
    proper = np.flatnonzero(is_proper)
    text = b"".join(sample_ids.take(pa.array(proper)).cast(pa.binary()).to_pylist())
    digits = _DIGIT_VALUES[np.frombuffer(text, dtype=np.uint8)].reshape(-1, 32)
    packed = np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)
    bits = np.zeros((len(sample_ids), 2), dtype=np.uint64)
    bits[proper] = packed
    is_proper[proper[(digits == _NO_DIGIT).any(axis=1)]] = False
    for row in np.flatnonzero(~is_proper).tolist():
        text = str(sample_ids[row].as_py()).encode()
        bits[row] = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), dtype=np.uint64)
    return bits
