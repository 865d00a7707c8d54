"""A request to a store -> its answer, however often it has to be asked, or its failure once patience is spent.

It knows failures and clocks; not what is asked, nor how. The store may be away for minutes, and then waiting is right.
Where waiting is known to be vain it would only hold others up: so the requests of a process share what they have seen.
"""

import contextlib
import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.metric_names import STORE_RETRIES
from pipeline.metrics import recorder
from pipeline.storage import StorageError
from schemas.errors import ErrorKind

PATIENCE_S = 300.0
PATIENCE_VARIABLE = "LABELMILL_STORE_PATIENCE_S"
FIRST_CONTACT_S = 10.0
"""For the first look at a store: a mistyped endpoint should not take minutes to be named."""

_OBJECT_SHARE = 0.1
_FIRST_WAIT_SHARE, _LONGEST_WAIT_SHARE = 1 / 3000, 1 / 30
_FEW_ATTEMPTS = 2
_MIN_ATTEMPTS_BEFORE_BLAME = 6
"""Chance alone, at one fault in twenty requests, fails so often once in sixty million."""
_MAX_OUTCOMES = 256
_MAX_GIVEN_UP = 1024
_STORE = ""
"""The key, among those of requests, that stands for the store as a whole."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long failures that may pass are waited out. 0 asks once."""

    store_s: float
    """For a store that answers nobody."""
    object_s: float = math.inf
    """For one object that fails while its store answers others."""

    @classmethod
    def from_environment(cls, *, at_most_s: float = math.inf) -> "Patience":
        """As `LABELMILL_STORE_PATIENCE_S` says, else `PATIENCE_S`; for requests that nobody else waits for.

        Raises:
            ValueError: the variable is not a number of seconds.
        """
        text = os.environ.get(PATIENCE_VARIABLE, "").strip()
        try:
            store_s = float(text) if text else PATIENCE_S
        except ValueError:
            store_s = math.nan
        if not 0 <= store_s < math.inf:
            raise ValueError(f"{PATIENCE_VARIABLE} is {text!r}; set it to a number of seconds, or to 0 to ask once")
        return cls(store_s=min(store_s, at_most_s))

    @classmethod
    def among_others(cls) -> "Patience":
        """For one object of many: a tenth of it if only this object fails, so that the others are not held up."""
        store_s = cls.from_environment().store_s
        return cls(store_s=store_s, object_s=store_s * _OBJECT_SHARE)

    def wait_s(self, num_attempts: int) -> float:
        """Doubles from a 3,000th of the patience to a 30th, spread so that many askers do not come back at once."""
        longest = self.store_s * _LONGEST_WAIT_SHARE
        return min(longest, self.store_s * _FIRST_WAIT_SHARE * 2 ** min(num_attempts - 1, 16)) * random.uniform(
            0.5, 1.5
        )


@dataclass(eq=False, kw_only=True)
class _Asker:
    """One request and what has become of it so far."""

    key: str
    patience: Patience
    num_attempts: int = 0
    first_failure_s: float = math.inf

    def count_failure(self) -> None:
        self.num_attempts += 1
        self.first_failure_s = min(self.first_failure_s, time.monotonic())

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.first_failure_s

    def final(self, error: StorageError) -> StorageError:
        if self.num_attempts == 1:
            return error
        return StorageError(error.kind, f"{error} (asked {self.num_attempts} times in {self.waited_s:.0f} s)")

    def wait(self) -> None:
        left_s = self.patience.store_s - self.waited_s
        time.sleep(max(0.0, min(self.patience.wait_s(self.num_attempts), left_s)))


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    asker: _Asker
    started_s: float
    answered: bool


class StoreHealth:
    """What the requests of this process have lately seen of one store. Thread-safe.

    Once a whole patience has passed without any answer from the store, requests get `_FEW_ATTEMPTS` until one of them
    is answered; so does a request that was given up before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: deque[_Outcome] = deque(maxlen=_MAX_OUTCOMES)
        self._given_up: dict[str, float] = {}
        self._prober = _Asker(key="probe", patience=Patience(store_s=0))
        self._warned = False

    def ask(self, request: Callable[[], T], *, key: str, patience: Patience, probe: Callable[[], object]) -> T:
        """The answer of `request`, which is asked again after every failure that is not permanent.

        Args:
            key: what is asked, so that a request that was given up is known when it comes again.
            probe: another request to the same store, for when nothing else says whether the store is there.

        Raises:
            StorageError: the request's own: a permanent one as it is, a transient one with how long was waited.
        """
        asker = _Asker(key=key, patience=patience)
        while True:
            try:
                return self._observe(request, asker)
            except StorageError as error:
                if error.kind.permanent:
                    raise
                asker.count_failure()
                if self._is_spent(asker, probe):
                    raise asker.final(error) from None
                self._warn_once(error, asker)
            asker.wait()
            recorder().add(STORE_RETRIES)

    def _observe(self, request: Callable[[], T], asker: _Asker) -> T:
        started_s = time.monotonic()
        try:
            answer = request()
        except StorageError as error:
            # An impossible name is refused on this side: the store has not said a word.
            if error.kind != ErrorKind.UNSUPPORTED_URI:
                self._record(_Outcome(asker=asker, started_s=started_s, answered=error.kind.permanent))
            raise
        self._record(_Outcome(asker=asker, started_s=started_s, answered=True))
        return answer

    def _record(self, outcome: _Outcome) -> None:
        with self._lock:
            self._outcomes.append(outcome)
            if outcome.answered:
                self._given_up.pop(_STORE, None)
                self._given_up.pop(outcome.asker.key, None)
                self._warned = False

    def _is_spent(self, asker: _Asker, probe: Callable[[], object]) -> bool:
        patience = asker.patience
        if asker.num_attempts < _FEW_ATTEMPTS:
            return patience.store_s == 0
        if self._was_given_up(asker):
            return True
        if asker.waited_s >= patience.store_s:
            self._give_up(asker.key if any(self._others(asker)) else _STORE, patience.store_s)
            return True
        if asker.waited_s < patience.object_s or asker.num_attempts < _MIN_ATTEMPTS_BEFORE_BLAME:
            return False
        if self._answers_others(asker, probe):
            self._give_up(asker.key, patience.object_s)
            return True
        return False

    def _was_given_up(self, asker: _Asker) -> bool:
        """Given up by somebody who waited at least as long as this one would."""
        patience = asker.patience
        with self._lock:
            store_after_s, object_after_s = self._given_up.get(_STORE, -1.0), self._given_up.get(asker.key, -1.0)
        return store_after_s >= patience.store_s or object_after_s >= min(patience.object_s, patience.store_s)

    def _give_up(self, key: str, after_s: float) -> None:
        with self._lock:
            self._given_up[key] = max(after_s, self._given_up.get(key, 0.0))
            if len(self._given_up) > _MAX_GIVEN_UP:
                del self._given_up[next(iter(self._given_up))]

    def _answers_others(self, asker: _Asker, probe: Callable[[], object]) -> bool:
        """Whether the store has answered at least as many of the others as it failed. Where that is in doubt, a probe
        counts as one of them: the last request of a block has no others, and may be left over by an outage.
        """
        if not _mostly(self._others(asker)):
            with contextlib.suppress(StorageError):
                self._observe(probe, self._prober)
        return _mostly(self._others(asker))

    def _others(self, asker: _Asker) -> list[bool]:
        """Of every other request asked since this one first failed, whether its latest attempt was answered."""
        with self._lock:
            latest = {
                outcome.asker: outcome.answered
                for outcome in self._outcomes
                if outcome.started_s >= asker.first_failure_s and outcome.asker is not asker
            }
        return list(latest.values())

    def _warn_once(self, error: StorageError, asker: _Asker) -> None:
        """Once in every absence of the store, so that whoever watches knows what is waited for."""
        if asker.waited_s < FIRST_CONTACT_S:
            return
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            _log.warning("%s; still asking, for up to %.0f s", error, asker.patience.store_s)


def _mostly(answered: list[bool]) -> bool:
    return bool(answered) and 2 * sum(answered) >= len(answered)
