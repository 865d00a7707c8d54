"""Ray's Jobs API -> one job sent, followed, and told apart by how it ended.

Ray itself says no more than SUCCEEDED, FAILED or STOPPED; the exit code of the command stands in the job's record.
Knows nothing of labeling.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs.exit_codes import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED

SILENCE_S = 300.0
"""How long a cluster that does not answer is asked again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 60.0
QUIET_S = 60.0
"""A log that says nothing for so long may hang on a connection that is gone: it is opened again."""

_LOST = (requests.RequestException, aiohttp.ClientError, OSError, RuntimeError)
_ENDED_BY_SHELL = {126: "cannot be run", 127: "is not installed, or not in the PATH that Ray was started with"}


class LostError(RuntimeError):
    """The cluster does not answer any more; the job may go on."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """`why`: one line for a person, where the exit code is not the command's own."""

    exit_code: int
    why: str = ""


class _Client(JobSubmissionClient):
    """Ray's own waits for an answer for ever, and tells of a token that is missing in a dozen lines."""

    def _do_request(self, method: str, endpoint: str, **how: Any) -> Any:
        try:
            return super()._do_request(method, endpoint, **{"timeout": (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S), **how})
        except AuthenticationError as error:
            raise ValueError(
                f"the cluster at {self.get_address()} takes no request without its token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from error


def connect(address: str) -> JobSubmissionClient:
    """
    Args:
        address: the URL of the cluster's dashboard.

    Raises ValueError for an address of another form and where the cluster asks for a token that is not there,
    RuntimeError where none answers.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--address must be the URL of the cluster's dashboard, http://HOST:8265, got {address!r}")
    for name in ("dashboard_sdk", "job.sdk"):  # which tell of each file sent and each connection that ends
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    try:
        with _no_addresses_in_environment():
            return _Client(address.rstrip("/"))
    except (OSError, KeyError, TypeError) as error:  # requests' errors are OSErrors; the others: what answers is no Ray
        raise RuntimeError(
            f"no Ray cluster answers at {address} ({_one_line(error)}): check that its dashboard runs and is reached "
            "from here, for example through ssh -L or kubectl port-forward"
        ) from error


@contextlib.contextmanager
def _no_addresses_in_environment() -> Iterator[None]:
    """Ray prefers these to the address that it is given."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def send(client: JobSubmissionClient, *, id: str, entrypoint: str, archive: Path, env: Mapping[str, str]) -> None:
    """Starts the job in a working folder with what the archive holds.

    Raises RuntimeError where the cluster does not take it; LostError where that is not known.
    """
    try:
        client.submit_job(
            submission_id=id,
            entrypoint=entrypoint,
            runtime_env={"working_dir": str(archive), "env_vars": dict(env)},
        )
    except OSError as error:
        raise LostError(f"the connection was lost while the job was sent ({_one_line(error)})") from error


def follow(client: JobSubmissionClient, id: str, *, show: Callable[[str], None], say: Callable[[str], None]) -> Ended:
    """Shows what the job prints until it has ended. A lost connection is made again; the job does not notice.

    Args:
        show: given what the job prints, piece by piece.
        say: told, in one line, when the connection is lost.

    Raises LostError, RuntimeError where the cluster knows no such job.
    """
    log = _Log(client, id, show)
    heard_at, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        ended = None
        try:
            ended = _how_it_ended(_details(client, id))
            heard_at, pause_s = time.monotonic(), FIRST_PAUSE_S
            log.read()
        except KeyError:
            raise RuntimeError(f"the cluster knows no job {id} any more: its head has been replaced") from None
        except _LOST as error:
            if ended is not None:
                say(f"the end of the job's log cannot be read ({_one_line(error)})")
                return ended
            silence_s = time.monotonic() - heard_at
            if silence_s > SILENCE_S:
                raise LostError(f"the cluster has not answered for {silence_s:.0f} s ({_one_line(error)})") from error
            if pause_s == FIRST_PAUSE_S:
                say(f"the connection is lost, the job goes on; trying again ({_one_line(error)})")
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        if ended is not None:  # before the log was read: it was read to its end
            return ended
        time.sleep(pause_s)


def _details(client: JobSubmissionClient, id: str) -> JobDetails:
    """Raises KeyError where there is no such job."""
    try:
        return client.get_job_info(id)
    except RuntimeError as error:
        if "status code 404" in str(error):
            raise KeyError(id) from error
        raise


class _Log:
    """What a job has printed, shown once however often it is opened: each time, Ray gives all of it."""

    def __init__(self, client: JobSubmissionClient, id: str, show: Callable[[str], None]) -> None:
        self._client, self._id, self._show = client, id, show
        self._num_shown = 0

    def read(self) -> None:
        """Until the job ends, or for as long as it says something; where no web socket passes, what there is by now."""
        try:
            asyncio.run(self._follow())
        except (aiohttp.ClientError, RuntimeError):
            self._show_new(self._client.get_job_logs(self._id), place=0)

    async def _follow(self) -> None:
        place = 0
        async with contextlib.aclosing(self._client.tail_job_logs(self._id)) as pieces:  # type: ignore[type-var]
            while (piece := await self._next(pieces)) is not None:
                self._show_new(piece, place=place)
                place += len(piece)

    def _show_new(self, piece: str, *, place: int) -> None:
        """Args: place: of the piece in all that the job has printed."""
        if new := piece[max(0, self._num_shown - place) :]:
            self._show(new)
            self._num_shown = place + len(piece)

    async def _next(self, pieces: Any) -> str | None:
        try:
            return str(await asyncio.wait_for(anext(pieces), QUIET_S))
        except (StopAsyncIteration, TimeoutError):
            return None


def _how_it_ended(details: JobDetails) -> Ended | None:
    """None while it has not."""
    if not details.status.is_terminal():
        return None
    code = details.driver_exit_code
    if details.status == JobStatus.SUCCEEDED:
        return Ended(exit_code=EXIT_DONE)
    if details.status == JobStatus.STOPPED:
        return Ended(exit_code=EXIT_INTERRUPTED, why="the job was stopped; what was committed is kept")
    if code is None:
        return Ended(exit_code=EXIT_FAILED, why=f"the cluster gave the job up: {_one_line(details.message or '')}")
    if code < 0:
        return Ended(exit_code=EXIT_FAILED, why=f"the job's process on the cluster was ended by signal {-code}")
    if code in _ENDED_BY_SHELL:
        return Ended(exit_code=EXIT_FAILED, why=f"the labelmill command {_ENDED_BY_SHELL[code]} on the cluster")
    return Ended(exit_code=code)


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
