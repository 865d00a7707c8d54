"""Whatever goes wrong with a store: what is said about it holds no credentials, not even in a traceback."""

import os
import pickle
import stat
import traceback

import pytest

from pipeline.patience import Patience
from pipeline.redact import redacted
from pipeline.s3 import S3Store
from pipeline.storage import StorageError, open_store
from schemas.errors import ErrorKind
from tests.faulty_s3 import Fault, faulty_s3
from tests.s3 import unused_endpoint, use_proxy, use_store

KEY_ID = "AKIAFAKEKEYIDFAKEKEY"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "FakeSecret+of/forty/characters/0123456789",
    "AWS_SESSION_TOKEN": "FakeSessionTokenFakeSessionTokenFakeSessionToken==",
}
PASSWORD = "FakePass_Wörd-1"


@pytest.fixture
def credentials(monkeypatch):
    """Call it after the environment points at a store."""

    def use():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)

    return use


def errors_of_every_operation(uri):
    store = S3Store(patience=Patience(store_s=0))
    calls = (
        store.head,
        store.get,
        store.open,
        store.delete,
        store.has_conditional_puts,
        store.check_writable,
        lambda uri: list(store.list(uri)),
        lambda uri: store.put(uri, b"x"),
        lambda uri: store.put_if_absent(uri, b"x"),
    )
    for call in calls:
        with pytest.raises(StorageError) as raised:
            call(uri)
        yield raised.value


def assert_no_credentials(error):
    copy = pickle.loads(pickle.dumps(error))
    for text in (str(error), repr(error), repr(copy), "".join(traceback.format_exception(error))):
        for secret in (*SECRETS.values(), PASSWORD, "Signature=0", "Signature=f"):
            assert secret not in text
        assert f"Credential={KEY_ID}" not in text


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "SignatureDoesNotMatch", ErrorKind.FORBIDDEN),
        (403, "InvalidAccessKeyId", ErrorKind.FORBIDDEN),
        (403, "AccessDenied", ErrorKind.FORBIDDEN),
        (400, "ExpiredToken", ErrorKind.FORBIDDEN),
        (400, "InvalidToken", ErrorKind.FORBIDDEN),
        (400, "InvalidRequest", ErrorKind.FORBIDDEN),
        (404, "NoSuchBucket", ErrorKind.MISSING),
        (503, "SlowDown", ErrorKind.STORE_UNAVAILABLE),
    ],
)
def test_store_that_quotes_the_credentials_it_was_shown_is_not_quoted(modest_store, credentials, status, code, kind):
    modest_store.refusal = (status, code)
    credentials()
    for error in errors_of_every_operation("s3://bucket/a.jpg"):
        assert error.kind in (kind, ErrorKind.FORBIDDEN)  # a HEAD is answered without a code
        assert_no_credentials(error)


def test_message_of_a_store_is_passed_on_without_its_quotes(modest_store, credentials):
    modest_store.refusal = (400, "InvalidRequest")
    credentials()
    with pytest.raises(StorageError, match=r"InvalidRequest: as told to http://.*/bucket/a.jpg.*Signature=\*\*\*"):
        S3Store().get("s3://bucket/a.jpg")


@pytest.mark.parametrize("user_info", [f"user:{PASSWORD}", f"user:{PASSWORD}@more", f":{PASSWORD}"])
def test_endpoint_with_a_password_is_named_without_it(monkeypatch, credentials, user_info):
    address = unused_endpoint().removeprefix("http://")
    use_store(monkeypatch, f"http://{user_info}@{address}")
    credentials()
    for error in errors_of_every_operation("s3://bucket/a.jpg"):
        assert error.kind == ErrorKind.STORE_UNAVAILABLE
        assert address in str(error)
        assert_no_credentials(error)


@pytest.mark.parametrize("endpoint_url", [f"user:{PASSWORD}@localhost", f"http://user:{PASSWORD}/x@localhost:9000"])
def test_endpoint_that_is_no_url_is_not_quoted(monkeypatch, credentials, endpoint_url):
    use_store(monkeypatch, endpoint_url)
    credentials()
    for error in errors_of_every_operation("s3://bucket/a.jpg"):
        assert "AWS_ENDPOINT_URL" in str(error)
        assert_no_credentials(error)


def test_http_proxy_with_a_password_is_named_without_it(monkeypatch, credentials):
    use_store(monkeypatch, "http://store.example.org")
    proxy_address = unused_endpoint().removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://user:{PASSWORD}@{proxy_address}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    credentials()
    for error in errors_of_every_operation("s3://bucket/a.jpg"):
        assert error.kind == ErrorKind.STORE_UNAVAILABLE
        assert_no_credentials(error)


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.RESET_AFTER, Fault.GARBAGE, Fault.SLOW_DOWN])
def test_broken_connections_to_an_endpoint_with_a_password_are_told_without_it(bucket, monkeypatch, credentials, fault):
    with faulty_s3(os.environ["AWS_ENDPOINT_URL"], rate=1, faults=[fault]) as proxy:
        use_proxy(monkeypatch, proxy.url.replace("://", f"://user:{PASSWORD}@"), patience_s=15)
        credentials()
        for error in errors_of_every_operation(f"{bucket}/a.jpg"):
            assert error.kind == ErrorKind.STORE_UNAVAILABLE
            assert_no_credentials(error)


def test_uri_with_a_password_is_named_without_it(modest_store, credentials):
    credentials()
    for error in errors_of_every_operation(f"s3://user:{PASSWORD}@bucket/a.jpg"):
        assert error.kind == ErrorKind.UNSUPPORTED_URI
        assert "***@bucket/a.jpg" in str(error)
        assert_no_credentials(error)
    with pytest.raises(StorageError, match=r"http://example.org/a.jpg: scheme 'http'") as raised:
        open_store(f"http://user:{PASSWORD}@example.org/a.jpg")
    assert_no_credentials(raised.value)


def test_output_of_a_credential_process_is_not_quoted(monkeypatch, tmp_path):
    process = tmp_path / "credentials.sh"
    process.write_text(f"#!/bin/sh\necho 'not for you: {PASSWORD}' >&2\nexit 1\n")
    process.chmod(stat.S_IRWXU)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {process}\n")
    use_store(monkeypatch, unused_endpoint())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for error in errors_of_every_operation("s3://bucket/a.jpg"):
        assert error.kind == ErrorKind.FORBIDDEN
        assert "'custom-process' failed" in str(error)
        assert_no_credentials(error)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"GET https://u:{PASSWORD}@host:9000/a?b=c", "GET https://***@host:9000/a?b=c"),
        ("https://host/a@b.jpg and s3://bucket/a@b.jpg", "https://host/a@b.jpg and s3://bucket/a@b.jpg"),
        (
            "https://host/a?X-Amz-Credential=KEY%2F2026&X-Amz-Signature=0f0f&X-Amz-Date=2026",
            "https://host/a?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=2026",
        ),
        (
            "https://host/a?AWSAccessKeyId=KEY&Signature=0f0f&Expires=1",
            "https://host/a?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=KEY/2026/s3, SignedHeaders=host, Signature=0f0f",
            "Authorization: AWS4-HMAC-SHA256 Credential=***, SignedHeaders=host, Signature=***",
        ),
        (
            "s3://bucket/Signature of the Painter.jpg: no such object",
            "s3://bucket/Signature of the Painter.jpg: no such object",
        ),
    ],
)
def test_what_signs_a_request_is_masked_and_the_rest_stays(text, masked):
    assert redacted(text) == masked


def test_password_with_a_slash_is_masked_where_the_environment_says_that_it_is_one(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:12/{PASSWORD}@host:9000")
    assert redacted(f"cannot reach http://user:12/{PASSWORD}@host:9000/b") == "cannot reach http://***@host:9000/b"


def test_secrets_of_the_environment_are_masked_wherever_they_stand_unless_they_are_plain_words(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS["AWS_SESSION_TOKEN"])
    assert redacted(f"<Token-0>{SECRETS['AWS_SESSION_TOKEN']}</Token-0>") == "<Token-0>***</Token-0>"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert redacted("s3://bucket/testing/a.jpg") == "s3://bucket/testing/a.jpg"
