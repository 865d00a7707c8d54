"""Images from the web: from addresses that were checked, within limits, and without anything of the job's own."""

import contextlib
import pickle
import ssl
import time

import pytest

from pipeline.addresses import is_public, system_addresses
from pipeline.http import MAX_REDIRECTS, HttpStore
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from tests.web import PRIVATE, PUBLIC, Page, certificate_for, web_server


class Names:
    """A name server that gives a name's answers one after the other, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        given = self.answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


def store(names: Names | None = None, **options) -> HttpStore:
    """Of an internet that is one address of this machine, on which all names lie unless told otherwise."""
    resolve = names or (lambda host, port: [PUBLIC])
    return HttpStore(**{"resolve": resolve, "is_allowed": lambda address: address == PUBLIC, **options})


def failure(call, *args, **kwargs) -> StorageError:
    with pytest.raises(StorageError) as raised:
        call(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return raised.value


def url_of(server, path="/a.jpg", host="images.example", scheme="http") -> str:
    return f"{scheme}://{host}:{server.server_address[1]}{path}"


class TestAddresses:
    @pytest.mark.parametrize(
        "address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450::8a"]
    )
    def test_of_the_internet_are_public(self, address: str):
        assert is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "0.1.2.3", "::"),
            *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"),
            *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fec0::1"),
            *("100.64.0.1", "100.100.100.200", "100.127.255.255"),
            *("192.0.0.192", "192.0.0.9", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
            *("192.88.99.1", "168.63.129.16", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "ff02::1"),
            *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe", "::127.0.0.1", "::8.8.8.8"),
            *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::"),
            *("2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1"),
            *("", "localhost", "127.1", "0x7f000001", "2130706433", "8.8.8.8/32", "1.1.1.1\n"),
        ],
    )
    def test_of_anything_else_are_not(self, address: str):
        assert not is_public(address)

    @pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "0", "[::1]", "[::ffff:127.0.0.1]"])
    def test_that_this_machine_answers_for_are_refused_however_they_are_spelled(self, host: str):
        error = failure(HttpStore().get, f"http://{host}:1/a.jpg")
        assert error.kind == ErrorKind.FORBIDDEN
        assert "no public address" in str(error)

    def test_of_a_name_are_each_given_once(self):
        assert system_addresses("127.0.0.1", 80) == ["127.0.0.1"]


class TestHost:
    @pytest.mark.parametrize("address", [PRIVATE, "169.254.169.254", "10.0.0.7", "::1"])
    def test_with_an_address_that_is_not_public_is_refused_unasked(self, address: str):
        with web_server({"/a.jpg": Page(b"secret")}, address=PRIVATE) as server:
            error = failure(store(Names(images_example=[[address]])).get, url_of(server))
        assert error.kind == ErrorKind.FORBIDDEN
        assert f"images.example is {address}" in str(error)
        assert server.asked == []

    def test_with_one_private_address_among_public_ones_is_refused(self):
        with web_server({"/a.jpg": Page(b"x")}) as server:
            error = failure(store(Names(images_example=[[PUBLIC, PRIVATE]])).get, url_of(server))
        assert error.kind == ErrorKind.FORBIDDEN
        assert server.asked == []

    def test_that_changes_its_address_after_the_check_is_reached_at_the_one_that_was_checked(self):
        names = Names(images_example=[[PUBLIC], [PRIVATE]])
        with web_server({"/a.jpg": Page(b"public")}) as server:
            assert store(names).get(url_of(server)) == b"public"
            assert names.asked == ["images.example"]
            assert failure(store(names).get, url_of(server)).kind == ErrorKind.FORBIDDEN
            assert len(server.asked) == 1

    def test_with_several_addresses_is_reached_at_the_one_that_listens(self):
        with web_server({"/a.jpg": Page(b"x")}) as server:
            here = store(Names(images_example=[["127.0.0.3", PUBLIC]]), is_allowed=lambda address: address != PRIVATE)
            assert here.get(url_of(server)) == b"x"

    def test_that_does_not_exist_is_missing(self):
        error = failure(HttpStore().get, "http://nothing.invalid/a.jpg")
        assert error.kind in (ErrorKind.MISSING, ErrorKind.STORE_UNAVAILABLE)  # the latter where there is no resolver
        assert "no address for nothing.invalid" in str(error)
        assert failure(store(lambda host, port: []).get, "http://empty.example/").kind == ErrorKind.MISSING

    @pytest.mark.parametrize(
        "url",
        [
            *("http://", "http:///a.jpg", "http://:80/", "http://host:99999/", "http://host:x/", "http://[::1/"),
            *(f"http://{'a' * 64}.example/", "http://a..b/"),
        ],
    )
    def test_that_is_none_is_an_unsupported_uri(self, url: str):
        assert failure(store().get, url).kind == ErrorKind.UNSUPPORTED_URI


class TestRequest:
    def test_names_the_host_and_carries_nothing_of_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path):
        (tmp_path / ".netrc").write_text("default login me password SECRET\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{PRIVATE}:1")
        with web_server({"/a.jpg?v=1": Page(b"x", headers={"Set-Cookie": "id=1"})}) as server:
            url = url_of(server, "/a.jpg?v=1#part", host="me:SECRET@Images.Example")
            assert [store().get(url), store().get(url)] == [b"x", b"x"]
        path, headers = server.asked[-1]
        assert path == "/a.jpg?v=1"
        assert headers.keys() == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert headers["host"] == f"images.example:{server.server_address[1]}"
        assert headers["accept-encoding"] == "identity"
        assert "SECRET" not in str(headers)

    @pytest.mark.parametrize(
        ("path", "asked"),
        [
            ("", "/"),
            ("/a b.jpg", "/a%20b.jpg"),
            ("/a%20b.jpg", "/a%20b.jpg"),
            ("/日本.jpg", "/%E6%97%A5%E6%9C%AC.jpg"),
            ("/a\r\nHost: evil\r\n\r\n", "/aHost:%20evil"),
            ("/a\\b\0c", "/a%5Cb%00c"),
        ],
    )
    def test_holds_one_path_whatever_characters_the_url_has(self, path: str, asked: str):
        with web_server({asked: Page(b"x")}) as server:
            assert store().get(url_of(server, path)) == b"x"
        assert [path for path, _ in server.asked] == [asked]

    def test_goes_out_from_a_store_that_was_pickled(self):
        assert pickle.loads(pickle.dumps(HttpStore())) == HttpStore()


class TestAnswer:
    @pytest.mark.parametrize(
        ("headers", "version"),
        [
            ({"ETag": '"abc"', "Last-Modified": "then"}, "abc"),
            ({"Last-Modified": "Tue, 01 Oct 2024 10:00:00 GMT"}, "Tue, 01 Oct 2024 10:00:00 GMT"),
            ({}, ""),
        ],
    )
    def test_has_a_size_and_a_version(self, headers, version):
        with web_server({"/a.jpg": Page(b"four", headers=headers)}) as server:
            info = store().head(url_of(server))
            assert (info.num_bytes, info.version) == (4, version)
            assert store().get(url_of(server), version=version) == b"four"
            if version:
                assert failure(store().get, url_of(server), version="other").kind == ErrorKind.CHANGED

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            *((404, ErrorKind.MISSING), (410, ErrorKind.MISSING)),
            *((401, ErrorKind.FORBIDDEN), (403, ErrorKind.FORBIDDEN), (407, ErrorKind.FORBIDDEN)),
            *((400, ErrorKind.FORBIDDEN), (451, ErrorKind.FORBIDDEN)),
            *((408, ErrorKind.STORE_UNAVAILABLE), (429, ErrorKind.STORE_UNAVAILABLE)),
            *((500, ErrorKind.STORE_UNAVAILABLE), (503, ErrorKind.STORE_UNAVAILABLE)),
            *((204, ErrorKind.UNSUPPORTED_URI), (206, ErrorKind.UNSUPPORTED_URI), (300, ErrorKind.UNSUPPORTED_URI)),
            (304, ErrorKind.UNSUPPORTED_URI),
        ],
    )
    def test_with_another_status_is_an_error_of_its_kind(self, status: int, kind: ErrorKind):
        with web_server({"/a.jpg": Page(status=status)}) as server:
            error = failure(store().get, url_of(server))
        assert error.kind == kind
        assert f"HTTP {status}" in str(error)

    @pytest.mark.parametrize(
        "headers", [{}, {"Content-Length": ""}, {"Content-Length": "", "Transfer-Encoding": "chunked"}]
    )
    def test_that_is_too_large_is_given_up_whether_it_says_so_or_not(self, headers):
        def endless(handler):
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")

        send = None if not headers else endless
        with web_server({"/a.jpg": Page(b"x" * 100_001, headers=headers, send=send)}) as server:
            error = failure(store().get, url_of(server), max_bytes=100_000)
        assert error.kind == ErrorKind.TOO_MANY_BYTES
        assert "limits.max_bytes = 100000" in str(error)

    def test_in_chunks_is_put_together(self):
        def send(handler):
            handler.wfile.write(b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n")

        headers = {"Content-Length": "", "Transfer-Encoding": "chunked"}
        with web_server({"/a.jpg": Page(headers=headers, send=send)}) as server:
            assert store().get(url_of(server)) == b"abcde"

    @pytest.mark.parametrize(
        ("headers", "sent"),
        [
            ({"Content-Length": "10"}, b"short"),
            ({"Content-Length": "", "Transfer-Encoding": "chunked"}, b"a\r\nshort"),
            ({"Content-Length": "", "Transfer-Encoding": "chunked"}, b"-1\r\nshort"),
        ],
    )
    def test_that_ends_early_may_be_whole_the_next_time(self, headers, sent: bytes):
        page = Page(headers=headers, send=lambda handler: handler.wfile.write(sent))
        with web_server({"/a.jpg": page}) as server:
            error = failure(store().get, url_of(server), max_bytes=1000)
        assert error.kind == ErrorKind.STORE_UNAVAILABLE
        assert "no complete answer" in str(error)

    def test_of_more_bytes_than_it_declares_ends_where_it_said(self):
        page = Page(headers={"Content-Length": "3"}, send=lambda handler: handler.wfile.write(b"abcdef"))
        with web_server({"/a.jpg": page}) as server:
            assert store().get(url_of(server)) == b"abc"

    def test_that_is_compressed_is_refused_unread(self):
        with web_server({"/a.jpg": Page(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})}) as server:
            error = failure(store().get, url_of(server))
        assert error.kind == ErrorKind.UNSUPPORTED_URI
        assert "comes compressed ('gzip')" in str(error)

    def test_that_never_comes_is_given_up(self):
        page = Page(headers={"Content-Length": "10"}, send=lambda handler: handler.rfile.read(1))
        with web_server({"/a.jpg": page}) as server:
            error = failure(store(idle_timeout_s=0.1).get, url_of(server))
        assert error.kind == ErrorKind.STORE_UNAVAILABLE
        assert "took too long" in str(error)

    @pytest.mark.parametrize(
        "headers", [{"Content-Length": "100000"}, {"Content-Length": ""}], ids=["sized", "unsized"]
    )
    def test_that_drips_is_ended_by_the_limit_on_the_whole(self, headers):
        def drip(handler):
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(b"x")
                    time.sleep(0.02)

        with web_server({"/a.jpg": Page(headers=headers, send=drip)}) as server:
            error = failure(store(idle_timeout_s=5, total_timeout_s=0.3).get, url_of(server))
        assert error.kind == ErrorKind.STORE_UNAVAILABLE
        assert "took too long" in str(error)

    def test_whose_header_drips_is_ended_too(self):
        def drip(handler):
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(b"1")  # of a chunk size that never ends
                    time.sleep(0.02)

        headers = {"Content-Length": "", "Transfer-Encoding": "chunked"}
        with web_server({"/a.jpg": Page(headers=headers, send=drip)}) as server:
            error = failure(store(idle_timeout_s=5, total_timeout_s=0.3).get, url_of(server))
        assert "took too long" in str(error)

    def test_of_a_server_that_is_not_there_may_come_later(self):
        with web_server({}) as server:
            pass
        assert failure(store().get, url_of(server)).kind == ErrorKind.STORE_UNAVAILABLE


def moved(to: str, status: int = 302) -> Page:
    return Page(status=status, headers={"Location": to})


class TestRedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_is_followed(self, status: int):
        with web_server({"/a.jpg": moved("../b.jpg?v=1", status), "/b.jpg?v=1": Page(b"b")}) as server:
            assert store().get(url_of(server)) == b"b"
            assert store().head(url_of(server)).num_bytes == 1

    @pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data/", "//metadata.example/", "http://[::1]/"])
    def test_to_an_address_that_is_not_public_is_refused(self, to: str):
        answers = {"metadata.example": ["169.254.169.254"], "images.example": [PUBLIC]}

        def resolve(host: str, port: int) -> list[str]:
            return answers.get(host) or system_addresses(host, port)

        with web_server({"/a.jpg": moved(to)}) as server:
            error = failure(store(resolve).get, url_of(server))
        assert error.kind == ErrorKind.FORBIDDEN
        assert "no public address" in str(error)

    def test_to_the_same_host_is_checked_again(self):
        names = Names(images_example=[[PUBLIC], [PRIVATE]])
        with web_server({"/a.jpg": moved("/b.jpg"), "/b.jpg": Page(b"b")}) as server:
            assert failure(store(names).get, url_of(server)).kind == ErrorKind.FORBIDDEN
        assert [path for path, _ in server.asked] == ["/a.jpg"]

    @pytest.mark.parametrize(
        "to", ["file:///etc/passwd", "ftp://images.example/a", "s3://bucket/a", "data:,x", "gopher://x"]
    )
    def test_to_another_scheme_is_refused(self, to: str):
        with web_server({"/a.jpg": moved(to)}) as server:
            error = failure(store().get, url_of(server))
        assert error.kind == ErrorKind.UNSUPPORTED_URI
        assert "redirects from http to" in str(error)

    def test_without_end_is_given_up(self):
        with web_server({"/a.jpg": moved("/a.jpg")}) as server:
            error = failure(store().get, url_of(server))
        assert error.kind == ErrorKind.UNSUPPORTED_URI
        assert len(server.asked) == MAX_REDIRECTS + 1

    def test_without_a_place_to_go_is_no_file(self):
        with web_server({"/a.jpg": Page(status=302)}) as server:
            assert "HTTP 302" in str(failure(store().get, url_of(server)))


class TestTls:
    def test_server_is_reached_by_its_address_and_verified_by_its_name(self, tmp_path):
        server_side, trusting = certificate_for("images.example", tmp_path)
        with web_server({"/a.jpg": Page(b"x")}, tls=server_side) as server:
            assert store(tls_context=lambda: trusting).get(url_of(server, scheme="https")) == b"x"
            error = failure(
                store(tls_context=lambda: trusting).get, url_of(server, host="other.example", scheme="https")
            )
        assert error.kind == ErrorKind.FORBIDDEN
        assert "certificate is not one of other.example" in str(error)

    def test_certificate_that_nobody_vouches_for_is_refused(self, tmp_path):
        server_side, _ = certificate_for("images.example", tmp_path)
        with web_server({"/a.jpg": Page(b"x")}, tls=server_side) as server:
            assert failure(store().get, url_of(server, scheme="https")).kind == ErrorKind.FORBIDDEN
        assert server.asked == []

    def test_is_not_given_up_by_a_redirect(self, tmp_path):
        server_side, trusting = certificate_for("images.example", tmp_path)
        with web_server({"/a.jpg": moved("http://images.example/b.jpg")}, tls=server_side) as server:
            error = failure(store(tls_context=lambda: trusting).get, url_of(server, scheme="https"))
        assert error.kind == ErrorKind.UNSUPPORTED_URI
        assert "redirects from https to http" in str(error)

    def test_server_that_drips_its_handshake_is_given_up(self):
        context = ssl.create_default_context()
        with web_server({}) as silent:  # it waits for a request line, and the client for a handshake
            error = failure(
                store(tls_context=lambda: context, idle_timeout_s=5, total_timeout_s=0.2).get,
                url_of(silent, scheme="https"),
            )
        assert error.kind == ErrorKind.STORE_UNAVAILABLE


def test_what_signs_a_url_is_not_repeated_in_its_errors():
    query = "?X-Amz-Signature=SECRET&token=SECRET"
    pages = {f"/moved{query}": moved(f"/gone{query}"), f"/large{query}": Page(b"large")}
    with web_server(pages) as server:
        for path in ("/gone", "/moved", "/large"):
            error = failure(store().get, url_of(server, path + query, host="me:SECRET@images.example"), max_bytes=1)
            assert "SECRET" not in str(error)
            assert "?..." in str(error)
    for url in (f"http://host:x/{query}", f"http://\0/{query}", f"http://{'a' * 64}/{query}"):
        assert "SECRET" not in str(failure(store().get, url))
