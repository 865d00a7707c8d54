"""The proxy itself: what it lets pass arrives as it was sent, and what it is told to break is broken and counted."""

import contextlib
import http.client
import os
import socket

import boto3
import pyarrow.fs
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from tests.faulty_s3 import BEFORE_BACKEND, Fault, FaultyS3, faulty_s3


@pytest.fixture
def proxy(bucket, monkeypatch):
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def client(**options):
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **options)
    return boto3.session.Session().client("s3", config=config)


def name_of(bucket):
    return bucket.removeprefix("s3://")


def raw(proxy, method, path, body=b"", **headers):
    """Status, headers and body of one request, made by hand."""
    host, port = proxy.server_address
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=30)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_signed_requests_ranges_and_conditional_puts_pass(bucket, proxy):
    store, where = client(), {"Bucket": name_of(bucket), "Key": "a b+ü.txt"}
    store.put_object(**where, Body=b"0123456789", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        store.put_object(**where, Body=b"another", IfNoneMatch="*")
    assert store.get_object(**where, Range="bytes=2-4")["Body"].read() == b"234"
    assert store.head_object(**where)["ContentLength"] == 10
    store.delete_object(**where)
    assert "Contents" not in store.list_objects_v2(Bucket=name_of(bucket))
    assert proxy.injected.total() == 0


def test_unsigned_requests_and_expect_100_continue_pass(bucket, proxy):
    path = f"/{name_of(bucket)}/a.txt"
    with socket.create_connection(proxy.server_address, timeout=30) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")
    client().put_object_acl(Bucket=name_of(bucket), Key="a.txt", ACL="public-read")
    assert raw(proxy, "GET", path)[::2] == (200, b"hello")


def test_chunked_and_aws_chunked_bodies_pass(bucket, proxy):
    path = f"/{name_of(bucket)}/chunked.txt"
    assert raw(proxy, "PUT", path, iter([b"hello ", b"chunks"]))[0] == 200
    client().put_object_acl(Bucket=name_of(bucket), Key="chunked.txt", ACL="public-read")
    assert raw(proxy, "GET", path)[2] == b"hello chunks"
    # Arrow's client signs trailing checksums into `aws-chunked` frames, part by part.
    host, port = proxy.server_address
    files = pyarrow.fs.S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=f"{host}:{port}", scheme="http"
    )
    data = os.urandom(100_000)
    with files.open_output_stream(f"{name_of(bucket)}/arrow.bin") as file:
        file.write(data)
    assert client().get_object(Bucket=name_of(bucket), Key="arrow.bin")["Body"].read() == data


@pytest.mark.parametrize("fault", sorted(set(Fault) - {Fault.DELAY, Fault.TRICKLE}))
def test_fault_fails_one_put_and_is_counted_and_only_some_reach_the_backend(bucket, proxy, fault):
    proxy.inject(fault)
    if fault in (Fault.TRUNCATED, Fault.STALL):
        client().put_object(Bucket=name_of(bucket), Key="a.txt", Body=b"x")  # half of its headers say 200 as well
    else:
        with pytest.raises((ClientError, HTTPClientError)):
            client().put_object(Bucket=name_of(bucket), Key="a.txt", Body=b"x")
    assert proxy.injected == {fault: 1}
    reached = client().list_objects_v2(Bucket=name_of(bucket)).get("KeyCount", 0) == 1
    assert reached == (fault not in BEFORE_BACKEND)


@pytest.mark.parametrize("fault", [Fault.DELAY, Fault.TRICKLE])
def test_late_answers_are_whole(bucket, proxy, fault):
    client().put_object(Bucket=name_of(bucket), Key="a.txt", Body=b"x" * 1000)
    proxy.inject(fault)
    assert client().get_object(Bucket=name_of(bucket), Key="a.txt")["Body"].read() == b"x" * 1000
    assert proxy.injected == {fault: 1}


def test_the_same_seed_draws_the_same_faults():
    drawn = []
    for _ in range(2):
        with faulty_s3("http://127.0.0.1:1", seed=4, rate=0.3) as proxy:
            drawn.append([proxy.draw("/bucket/key") for _ in range(500)])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {None, *Fault}
    assert 100 < sum(fault is not None for fault in drawn[0]) < 200


def test_store_is_down_until_it_comes_back_and_a_broken_path_until_it_is_mended(bucket, proxy):
    store, where = client(), {"Bucket": name_of(bucket), "Key": "a.txt"}
    store.put_object(**where, Body=b"x")
    proxy.go_down()
    with pytest.raises(HTTPClientError):
        store.head_object(**where)
    proxy.come_back()
    proxy.break_path(f"/{name_of(bucket)}/a.txt")
    with pytest.raises(ClientError):
        store.head_object(**where)
    store.head_bucket(Bucket=name_of(bucket))
    proxy.mend_path(f"/{name_of(bucket)}/a.txt")
    store.head_object(**where)
    assert (proxy.num_refused, dict(proxy.injected)) == (1, {Fault.INTERNAL_ERROR: 1})


def test_end_of_the_proxy_ends_its_stalls_and_its_port(bucket, monkeypatch):
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"], stall_s=600) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        client().put_object(Bucket=name_of(bucket), Key="a.txt", Body=b"x" * 1000)
        proxy.inject(Fault.STALL)
        body = client().get_object(Bucket=name_of(bucket), Key="a.txt")["Body"]
    with pytest.raises(HTTPClientError):
        body.read()
    assert isinstance(proxy, FaultyS3)
    with pytest.raises(OSError):
        socket.create_connection(proxy.server_address, timeout=5)
