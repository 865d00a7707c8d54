"""What runs leave below `_run` without using it any more -> removed, once a run has finalized.

The output's lease is held meanwhile. Workers of a dead run may still be writing, so that a staged file that no commit
names is only removed if the finalize before has seen it already.
"""

from collections.abc import Collection

from pipeline.ledger import RunFolder
from pipeline.storage import open_store


def sweep(folder: RunFolder, *, named: Collection[str], unnamed_before: Collection[str]) -> tuple[str, ...]:
    """
    Args:
        named: names of staged files, without their folder and suffix, that a commit names.
        unnamed_before: what this returned last time.

    Returns: staged files below the folder that no commit names and that were left this time.
    """
    unnamed = _sweep_staged(folder, frozenset(named), frozenset(unnamed_before))
    _delete_all(folder, folder.parts_uri)
    _delete_all(folder, folder.in_hand_uri)
    return unnamed


def _sweep_staged(folder: RunFolder, named: frozenset[str], unnamed_before: frozenset[str]) -> tuple[str, ...]:
    staged_uri = folder.all_staged_uri
    store, left = open_store(folder.uri), []
    for info in list(store.list_or_empty(staged_uri)):
        name = info.uri.removeprefix(f"{staged_uri}/")
        if name.rpartition("/")[2].removesuffix(".parquet") in named:
            continue
        if name in unnamed_before:
            store.delete(info.uri)
        else:
            left.append(name)
    return tuple(left)


def _delete_all(folder: RunFolder, uri: str) -> None:
    store = open_store(folder.uri)
    for info in list(store.list_or_empty(uri)):
        store.delete(info.uri)
