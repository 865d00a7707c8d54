"""Listing ahead gives what listing page by page gives. Pages are of a thousand keys in a real store; here they are
small where the number of pages matters."""

import itertools
import random
import threading

import pytest

from pipeline import s3_listing
from pipeline.s3 import ListedPage, S3Store
from pipeline.s3_listing import list_ahead
from pipeline.storage import ObjectInfo, StorageError, join_uri, open_store
from schemas.errors import ErrorKind

AWKWARD = [
    *("a", "a-b", "a.b", "a/", "a/b", "a/b/", "a/b/c", "a0", "a//b", "a-/x", "a/-", "A/a", "B"),
    *("é/x", "ö", "e\u0301/x", "空/白/x", "\U0001f600/x", "\ufffd/x", "z z/x y", "z+/x", "z%2F/x", "#/x", "?"),
    *("empty/", "empty/empty/", "deep/" + "d/" * 30 + "x", "~", "a/b-c", "a/b.c/d"),
]


class CountingStore(S3Store):
    """Counts pages, and how many are asked for at once."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.num_pages = self.num_at_once = self.max_at_once = 0

    def list_page(self, *args, **where):
        with self.lock:
            self.num_pages += 1
            self.num_at_once += 1
            self.max_at_once = max(self.max_at_once, self.num_at_once)
        try:
            return super().list_page(*args, **where)
        finally:
            with self.lock:
                self.num_at_once -= 1


class MadeUpStore(CountingStore):
    """An S3 of made-up keys that answers as S3 does, with pages as small as one likes. Every answer waits for others
    that were asked for at the same time, so that what is said to be at once is at once."""

    def __init__(self, keys, *, page_keys, forbidden=None, num_together=1):
        super().__init__()
        self.keys, self.page_keys, self.forbidden = sorted(keys), page_keys, forbidden
        self.num_together, self.together = num_together, threading.Condition()

    def list_page(self, bucket, **where):
        with self.lock:
            self.num_pages += 1
            self.num_at_once += 1
            self.max_at_once = max(self.max_at_once, self.num_at_once)
        with self.together:
            self.together.notify_all()
            self.together.wait_for(lambda: self.max_at_once >= self.num_together, timeout=0.01)
        with self.lock:
            self.num_at_once -= 1
        return self.answer(bucket, **where)

    def answer(self, bucket, *, prefix, start_after="", token="", delimiter=""):
        if prefix == self.forbidden:
            raise StorageError(ErrorKind.FORBIDDEN, f"s3://{bucket}/{prefix}: not yours")
        names = []
        for key in self.keys:
            if key.startswith(prefix) and key > start_after:
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                name = key if cut < 0 else key[: cut + 1]
                if name > token and (not names or names[-1] != (name, cut >= 0)):
                    names.append((name, cut >= 0))
        page, rest = names[: self.page_keys], names[self.page_keys :]
        return ListedPage(
            objects=[
                ObjectInfo(uri=f"s3://{bucket}/{name}", num_bytes=1, version="v") for name, cut in page if not cut
            ],
            folders=[name for name, cut in page if cut],
            next_token=page[-1][0] if rest else "",
        )


def keys_of(store, prefix="", **how):
    return [info.uri.removeprefix("s3://bucket/") for info in list_ahead(store, f"s3://bucket/{prefix}", **how)]


@pytest.fixture(scope="module")
def awkward(moto_endpoint):
    from tests import s3

    with pytest.MonkeyPatch.context() as patch:
        s3.use_store(patch, moto_endpoint)
        bucket = s3.make_bucket(moto_endpoint)
        for key in AWKWARD:
            open_store(bucket).put(f"{bucket}/{key}", b"x")
        yield bucket


@pytest.mark.parametrize(
    ("below", "starting_with"),
    [("", ""), ("a", ""), ("a/b", ""), ("", "a"), ("", "a/b"), ("deep", ""), ("empty", ""), ("none", ""), ("é", "")],
)
def test_awkward_names_are_listed_as_page_by_page(awkward, below, starting_with):
    uri, store = join_uri(awkward, below) if below else awkward, open_store(awkward)
    expected = list(store.list(uri, starting_with=starting_with))
    assert list(list_ahead(store, uri, starting_with=starting_with)) == expected
    assert bool(expected) == (below not in ("empty", "none"))


@pytest.mark.parametrize("page_keys", [1, 2, 3, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_order_is_that_of_whole_keys_however_pages_are_cut(page_keys, seed, monkeypatch):
    monkeypatch.setattr(s3_listing, "KEYS_PER_PAGE", page_keys)
    draw = random.Random(seed)
    keys = {"".join(draw.choice("ab-/.0é") for _ in range(draw.randint(1, 9))) for _ in range(200)}
    expected = sorted(key for key in keys if not key.endswith("/"))
    assert keys_of(MadeUpStore(keys, page_keys=page_keys)) == expected


def test_folders_are_listed_at_once_and_not_all_of_them():
    keys = [f"{folder:04d}/{number}" for folder in range(300) for number in range(10)]
    store = MadeUpStore(keys, page_keys=1000, num_together=s3_listing.NUM_THREADS)
    listed = list_ahead(store, "s3://bucket/")
    begun = list(itertools.islice(listed, 500))
    assert store.max_at_once == s3_listing.NUM_THREADS
    assert store.num_pages <= 1 + 50 + s3_listing.MAX_PAGES_AHEAD
    assert len(begun) + len(list(listed)) == len(keys)


def test_first_object_costs_few_requests():
    store = MadeUpStore([f"{folder}/x" for folder in range(500)], page_keys=1000)
    assert next(list_ahead(store, "s3://bucket/")).uri == "s3://bucket/0/x"
    assert store.num_pages <= 3


def test_folders_of_one_file_are_given_up_for_plain_listing(monkeypatch):
    """Else ten thousand files would cost ten thousand requests in place of a hundred."""
    monkeypatch.setattr(s3_listing, "KEYS_PER_PAGE", 100)
    keys = [f"{folder:05d}/x" for folder in range(2_000)]
    store = MadeUpStore(keys, page_keys=100)
    assert keys_of(store) == keys
    assert store.num_pages < 2 * 100 + 2_000 // 100 + s3_listing.MAX_PAGES_AHEAD


def test_error_of_one_folder_comes_in_its_turn_and_ends_the_listing():
    keys = [f"{folder}/{number}" for folder in "abcd" for number in range(3)]
    listed = list_ahead(MadeUpStore(keys, page_keys=1000, forbidden="c/"), "s3://bucket/")
    assert [info.uri for info in itertools.islice(listed, 6)] == [f"s3://bucket/{key}" for key in keys[:6]]
    with pytest.raises(StorageError, match="s3://bucket/c/: not yours"):
        next(listed)


def test_missing_bucket_is_the_same_error_as_page_by_page(bucket):
    store = open_store(bucket)
    with pytest.raises(StorageError) as raised:
        list(list_ahead(store, f"{bucket}-not"))
    assert raised.value.kind == ErrorKind.MISSING


def test_requests_of_a_real_client_are_under_way_at_once(bucket):
    for key in (f"{folder}/{name}" for folder in range(12) for name in "ab"):
        open_store(bucket).put(f"{bucket}/{key}", b"x")
    store = CountingStore()
    assert list(list_ahead(store, bucket)) == list(store.list(bucket))
    assert store.num_pages == 1 + 12
