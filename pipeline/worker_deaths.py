"""How often label actors died in a run, and of what: for the summary.

    <output>/_run/in_hand/<run>/deaths/why-<actor>-<once>.json     by an actor that ends itself, as its engine died
    <output>/_run/in_hand/<run>/deaths/again-<actor>-<once>.json   by one that is started in the place of a dead one

Written to the store, because who dies tells nobody, and a successor may run on another machine under the same name.
Every record is an object of its own, so that nobody overwrites another's; a run in which nobody dies writes none. Where
there are more successors than reasons, somebody killed the process (the kernel, if memory ran out), or its machine is
gone. A death that ends the run has no successor, and is what the run fails with. Knows no Ray.
"""

import json
import re
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.redact import redacted
from pipeline.storage import StorageError, join_uri, open_store

UNTOLD = "killed (out of memory?), or lost with its machine"
MAX_REASON_CHARS = 300
_FOLDER = "deaths"
_PROCESS_NUMBER = re.compile(r" \(process \d+\)")
"""Which would make every reason one of its own; it is in the log."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    name: str
    """The same for whoever takes its place."""
    is_successor: bool


def sentence(by_reason: Mapping[str, int]) -> str:
    """ "" where nobody died."""
    if not by_reason:
        return ""
    total, reasons = sum(by_reason.values()), "; ".join(f"{reason} ({count})" for reason, count in by_reason.items())
    return f"{total} label actor{'s' if total > 1 else ''} died: {reasons}"


class WorkerDeaths:
    """The records of one run. Can be pickled.

    Args:
        this_actor: called in the actor.
    """

    def __init__(self, in_hand_uri: str, run: int, *, this_actor: Callable[[], Actor] | None = None) -> None:
        self._uri = join_uri(in_hand_uri, f"{run:06d}", _FOLDER)
        self._this_actor = this_actor

    def start(self) -> None:
        """Of an actor that starts."""
        if self._this_actor is not None and (actor := self._this_actor()).is_successor:
            self._put(f"again-{actor.name}", {})

    def end_because_of(self, reason: str) -> None:
        """Of an actor that is about to end itself."""
        if self._this_actor is not None:
            short = _PROCESS_NUMBER.sub("", " ".join(redacted(reason).split()))[:MAX_REASON_CHARS]
            self._put(f"why-{self._this_actor().name}", {"reason": short})

    def by_reason(self) -> dict[str, int]:
        """The most frequent first."""
        reasons: Counter[str] = Counter()
        successors: Counter[str] = Counter()
        told: Counter[str] = Counter()
        store = open_store(self._uri)
        for info in list(store.list_or_empty(self._uri)):
            kind, actor, _ = info.uri.rpartition("/")[2].split("-", 2)
            if kind == "again":
                successors[actor] += 1
            else:
                told[actor] += 1
                reasons[json.loads(store.get(info.uri))["reason"]] += 1
        if untold := (successors - told).total():
            reasons[UNTOLD] = untold
        return dict(reasons.most_common())

    def _put(self, name: str, record: dict[str, str]) -> None:
        uri = join_uri(self._uri, f"{name}-{uuid.uuid4().hex}.json")
        try:
            open_store(uri).put(uri, json.dumps(record).encode())
        except StorageError as error:  # only the summary lacks it
            print(f"labelmill: a death of a label actor is not noted: {error}", file=sys.stderr, flush=True)
