"""Datasets kept side by side: which one is the output's, and which have had their time.

    <output>/versions/<run>/<table>/part-...   one dataset each, whole once LATEST names it or a later one
    <output>/LATEST                            the name of the newest
    <output>/<table>/part-...                  instead of both, where a job keeps no versions

A reader that opened a version has it until so many later ones were written. A version is written where nobody looks,
then `_run/finalized.json` names it, then LATEST; what a killed run leaves in between, the next one mends or removes.
"""

from pipeline.ledger import RunFolder
from pipeline.output_names import LATEST_NAME, VERSIONS_NAME
from pipeline.storage import join_uri, open_store
from pipeline.whole_shards import Finalized


def version_name(run: int) -> str:
    """Names sort as the runs do."""
    return f"{run:06d}"


def version_uri(folder: RunFolder, version: str | None) -> str:
    """Where a dataset lies; None: where there are no versions."""
    return folder.output_uri if version is None else join_uri(folder.output_uri, VERSIONS_NAME, version)


def dataset_uri(folder: RunFolder) -> str:
    """Where the tables of the newest whole dataset lie, or would lie if there was one."""
    finalized = Finalized.read(folder)
    return version_uri(folder, finalized.version if finalized is not None else None)


def point_to_latest(folder: RunFolder, finalized: Finalized) -> None:
    """Makes LATEST name the newest version, and removes those that are not kept; nothing where no versions are."""
    if finalized.version is None:
        return
    store, latest_uri = open_store(folder.output_uri), join_uri(folder.output_uri, LATEST_NAME)
    text = f"{finalized.version}\n".encode()
    if not store.exists(latest_uri) or store.get(latest_uri) != text:
        store.put(latest_uri, text)
    versions_uri = join_uri(folder.output_uri, VERSIONS_NAME)
    for info in list(store.list_or_empty(versions_uri)):
        name = info.uri.removeprefix(f"{versions_uri}/").partition("/")[0]
        if name not in finalized.versions:
            store.delete(info.uri)


def remove_version(folder: RunFolder, version: str) -> None:
    """One that turned out to be equal to the one before."""
    uri = version_uri(folder, version)
    store = open_store(uri)
    for info in list(store.list_or_empty(uri)):
        store.delete(info.uri)
