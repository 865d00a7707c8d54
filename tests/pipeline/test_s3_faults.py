"""S3 as it is on a bad day: the same answers come out, or the failure is one that may pass."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import s3, s3_client
from pipeline.patience import Patience
from pipeline.s3 import S3Store
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from tests.faulty_s3 import Fault, faulty_s3
from tests.s3 import KEYS_PER_PAGE, use_proxy

ONCE = Patience(store_s=0)


@pytest.fixture
def proxy(bucket, monkeypatch):
    """Before the store of `bucket`; lets everything pass until told otherwise."""
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"], seed=11) as proxy:
        use_proxy(monkeypatch, proxy.url, patience_s=15)
        yield proxy


def kind_of(call, *args):
    with pytest.raises(StorageError) as raised:
        call(*args)
    return raised.value.kind


def test_every_operation_gives_right_results_while_a_third_of_the_requests_fail(bucket, proxy):
    proxy.rate = 0.3
    store = S3Store()
    names = [f"{number:02d} +ü" for number in range(30)]
    for number, name in enumerate(names):
        uri, data = f"{bucket}/round/{name}", os.urandom(3_000)
        assert not store.exists(uri)
        assert store.put_if_absent(uri, data) is True
        assert store.put_if_absent(uri, b"another") is False
        assert store.get(uri, version=store.head(uri).version) == data
        store.put(uri, data[::-1])
        with store.open(uri) as file:
            file.seek(1_000)
            assert file.read(500) == data[::-1][1_000:1_500]
        if number % 2:
            store.delete(uri)
            assert not store.exists(uri)
    assert [info.uri for info in store.list(f"{bucket}/round")] == [f"{bucket}/round/{name}" for name in names[::2]]
    assert store.has_conditional_puts(bucket) is True
    store.check_writable(bucket)
    assert set(proxy.injected) == set(Fault)


def test_listing_of_several_pages_neither_loses_nor_doubles_a_key(bucket, proxy):
    store = S3Store()
    uris = [f"{bucket}/{number:03d}.jpg" for number in range(3 * KEYS_PER_PAGE)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda uri: store.put(uri, b""), uris))
    proxy.faults = tuple(set(Fault) - {Fault.DELAY, Fault.TRICKLE})
    proxy.rate = 0.5
    for _ in range(5):
        assert [info.uri for info in store.list(bucket)] == uris
    assert proxy.injected.total() > 5


def test_listing_goes_on_where_it_was_after_the_store_was_away(bucket, proxy):
    store = S3Store()
    uris = [f"{bucket}/{number:03d}.jpg" for number in range(KEYS_PER_PAGE + 5)]
    for uri in uris:
        store.put(uri, b"")
    listing = store.list(bucket)
    found = [next(listing).uri]
    num_before = proxy.num_requests
    proxy.go_down()
    back = threading.Thread(target=proxy.come_back_after, args=(3,))
    back.start()
    found += [info.uri for info in listing]
    back.join()
    assert found == uris
    assert proxy.num_refused > 0
    assert proxy.num_requests - num_before - proxy.num_refused == 1  # the second page, and not the first again


@pytest.mark.parametrize("lost", [Fault.RESET_AFTER, Fault.TRUNCATED, Fault.STALL])
def test_put_if_absent_is_won_when_only_the_answer_was_lost(bucket, proxy, lost):
    uri = f"{bucket}/lease.json"
    proxy.inject(None, lost)  # it looks, then it writes
    assert S3Store().put_if_absent(uri, b"mine") is True
    assert proxy.injected[lost] == 1
    proxy.inject(lost, lost)
    assert S3Store().put_if_absent(uri, b"theirs") is False
    assert S3Store().get(uri) == b"mine"


def test_put_if_absent_is_lost_to_whoever_came_first_even_if_an_attempt_of_ours_failed(bucket, proxy):
    S3Store().put(f"{bucket}/lease.json", b"theirs")
    proxy.inject(Fault.SLOW_DOWN)
    assert S3Store().put_if_absent(f"{bucket}/lease.json", b"mine") is False


def test_of_many_who_put_the_same_name_under_faults_exactly_one_is_told_that_it_won(bucket, proxy):
    proxy.rate = 0.3
    for number in range(4):
        uri = f"{bucket}/lease-{number}.json"
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(lambda writer, uri=uri: S3Store().put_if_absent(uri, b"%d" % writer), range(8)))
        assert sum(won) == 1
        assert S3Store().get(uri) == b"%d" % won.index(True)


@pytest.mark.parametrize("fault", sorted(set(Fault) - {Fault.DELAY, Fault.TRICKLE}))
def test_every_fault_of_the_network_is_one_that_may_pass(bucket, proxy, fault):
    uri = f"{bucket}/a.jpg"
    S3Store().put(uri, b"x" * 10_000)
    store = S3Store(patience=ONCE)
    for call in (store.get, store.head, lambda uri: list(store.list(uri))):
        proxy.inject(fault)
        assert kind_of(call, uri) == ErrorKind.STORE_UNAVAILABLE
    proxy.inject(None, fault)
    with store.open(uri) as file:
        assert kind_of(file.read) == ErrorKind.STORE_UNAVAILABLE


def test_body_that_stalls_is_asked_for_again_after_the_clients_time_out(bucket, proxy, monkeypatch):
    S3Store().put(f"{bucket}/a.jpg", b"x" * 10_000)
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 0.3)
    proxy.stall_s = 600  # longer than any test may take
    proxy.inject(Fault.STALL, Fault.STALL)
    assert S3Store().get(f"{bucket}/a.jpg") == b"x" * 10_000
    assert proxy.injected[Fault.STALL] == 2


def test_body_that_trickles_is_asked_for_again(bucket, proxy, monkeypatch):
    data = os.urandom(4_000_000)
    S3Store().put(f"{bucket}/a.jpg", data)
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 1)
    monkeypatch.setattr(s3, "SLOWEST_BYTES_PER_S", 100_000_000)
    proxy.stall_s = 600 / 50  # a piece every 0.24 s: never silent for a second
    proxy.inject(Fault.TRICKLE)
    assert S3Store().get(f"{bucket}/a.jpg") == data
    assert proxy.injected[Fault.TRICKLE] == 1
    assert proxy.num_requests == 3


def test_permanent_failures_are_asked_once_through_the_worst_weather(bucket, proxy):
    store = S3Store()
    for kind, call, uri in (
        (ErrorKind.MISSING, store.get, f"{bucket}/nothing.jpg"),
        (ErrorKind.MISSING, store.head, f"{bucket}/nothing.jpg"),
        (ErrorKind.MISSING, store.get, "s3://no-such-bucket-here/a.jpg"),
    ):
        num_before = proxy.num_requests
        assert kind_of(call, uri) == kind
        assert proxy.num_requests == num_before + 1
        proxy.inject(Fault.RESET_AFTER)
        assert kind_of(call, uri) == kind
        assert proxy.num_requests == num_before + 3
