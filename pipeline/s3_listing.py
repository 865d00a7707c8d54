"""An S3 prefix -> all objects below it, in the order of their keys, with several requests under way at once.

One request lists a thousand keys, and the next page needs the last key of the one before: a billion keys are a million
requests in a row, more than a day. Here each folder is listed by itself (`Delimiter="/"`), the next few at the same
time. No key lies between those of one folder, so a folder's keys take its place in the order of its parent.

A single folder of very many keys gains nothing; folders of very few keys are given up for plain listing.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipeline.s3 import ListedPage, S3Store
from pipeline.storage import ObjectInfo, split_s3

NUM_THREADS = 16
MAX_PAGES_AHEAD = 2 * NUM_THREADS
"""Asked for and not yet given to the caller: at most 32,000 objects."""
KEYS_PER_PAGE = 1000
_PAGES_TO_JUDGE = 64


def list_ahead(store: S3Store, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
    """As `store.list`. Looks further ahead the longer it is read, so that the first object alone costs few requests."""
    return _AheadListing(store, prefix_uri, starting_with).objects()


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The page after `start_after` of the keys with a prefix: of the folder alone, or of all that is below it."""

    prefix: str
    start_after: str = ""
    token: str = ""
    only_folder: bool = True


class _AheadListing:
    def __init__(self, store: S3Store, prefix_uri: str, starting_with: str) -> None:
        self._store = store
        self._bucket, key = split_s3(prefix_uri)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        self._turns: deque[_Request | ObjectInfo] = deque([_Request(prefix=folder + starting_with)])
        self._answers: dict[_Request, Future[ListedPage]] = {}
        self._num_ahead = 1
        self._keys_of_pages: deque[int] = deque(maxlen=_PAGES_TO_JUDGE)

    def objects(self) -> Iterator[ObjectInfo]:
        last_key = ""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            try:
                while self._turns:
                    turn = self._turns.popleft()
                    if isinstance(turn, ObjectInfo):
                        last_key = turn.uri.removeprefix(f"s3://{self._bucket}/")
                        if not last_key.endswith("/"):
                            yield turn
                        continue
                    self._turns.appendleft(turn)
                    self._ask_ahead(threads)
                    self._turns.popleft()
                    self._expand(turn, self._answers.pop(turn).result(), last_key)
            finally:
                threads.shutdown(cancel_futures=True)

    def _ask_ahead(self, threads: ThreadPoolExecutor) -> None:
        requests = (turn for turn in self._turns if isinstance(turn, _Request))
        for _, request in zip(range(self._num_ahead), requests, strict=False):
            if request not in self._answers:
                self._answers[request] = threads.submit(self._ask, request)
        self._num_ahead = min(2 * self._num_ahead, MAX_PAGES_AHEAD)

    def _ask(self, request: _Request) -> ListedPage:
        return self._store.list_page(
            self._bucket,
            prefix=request.prefix,
            start_after=request.start_after,
            token=request.token,
            delimiter="/" if request.only_folder else "",
        )

    def _expand(self, request: _Request, page: ListedPage, last_key: str) -> None:
        """Puts what the page says in the place of its request."""
        self._keys_of_pages.append(len(page.objects))
        if page.folders and self._folders_are_too_small():
            # The page is asked for once more, with all that is below its folders.
            self._turns.appendleft(replace(request, start_after=last_key, token="", only_folder=False))
            return
        named = {info.uri.removeprefix(f"s3://{self._bucket}/"): info for info in page.objects}
        children: list[_Request | ObjectInfo] = [
            named[name] if name in named else _Request(prefix=name) for name in sorted([*named, *page.folders])
        ]
        if page.next_token:
            children.append(replace(request, token=page.next_token))
        self._turns.extendleft(reversed(children))

    def _folders_are_too_small(self) -> bool:
        """Whether all threads together get no more keys than one that lists plainly, for many times the requests."""
        is_known = len(self._keys_of_pages) == _PAGES_TO_JUDGE
        return is_known and sum(self._keys_of_pages) * NUM_THREADS < KEYS_PER_PAGE * _PAGES_TO_JUDGE
