"""Fixtures that several folders of tests share."""

from collections.abc import Iterator

import pytest

from tests import s3


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The endpoint URL of one moto server for the whole session."""
    with s3.moto_server() as endpoint_url:
        yield endpoint_url


@pytest.fixture
def bucket(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new empty bucket as `s3://name`, with the AWS environment of this test pointing at its server."""
    s3.use_store(monkeypatch, moto_endpoint)
    return s3.make_bucket(moto_endpoint)


@pytest.fixture
def modest_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.ModestStore]:
    """An S3 API that misbehaves as told; the AWS environment of this test points at it."""
    with s3.modest_store() as server:
        s3.use_store(monkeypatch, server.endpoint_url)
        yield server
