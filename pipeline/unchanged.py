"""Files and the hashes that were written down when they were made -> the files that are not what they were.

Reads every byte, a piece at a time; what is in the files is not known here.
"""

import hashlib
from collections.abc import Iterator, Mapping

from pipeline.read_ahead import in_order
from pipeline.storage import open_store

_PIECE_BYTES = 8 << 20
_NUM_THREADS = 4


def changed_files(sha256_by_uri: Mapping[str, str | None], prefix: str) -> Iterator[str]:
    """A sentence for each file whose bytes differ, or of which no hash is known.

    Args:
        prefix: left out of the names in the sentences.

    Raises:
        StorageError: a file cannot be read.
    """
    found = in_order(_sha256, sha256_by_uri, num_threads=_NUM_THREADS, items_per_task=1)
    for (uri, written), now in zip(sha256_by_uri.items(), found, strict=True):
        name = uri.removeprefix(prefix)
        if written is None:
            yield f"{name}: no hash of it was written down, so that a change of its bytes would not be noticed"
        elif now != written:
            yield f"{name}: its bytes are not those that were written (SHA-256 {now[:12]}, was {written[:12]})"


def _sha256(uri: str) -> str:
    digest = hashlib.sha256()
    with open_store(uri).open(uri) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
