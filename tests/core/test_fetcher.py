"""The guarded fetcher: real servers on the loopback, and addresses that must never be reached."""

import base64
import http.server
import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from sglang_core import ConfigError, FetchLimits, RequestError, fetch, fetcher, load_input, shown_reference

LOOPBACK = ("127.0.0.1",)


class Pages(http.server.BaseHTTPRequestHandler):
    """A server with a page for each behaviour; it keeps what it was asked."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []
    release = threading.Event()

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        page = self.path.partition("?")[0]
        if page.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", base64.urlsafe_b64decode(page[4:]).decode())
            self.end_headers()
        elif page == "/loop":
            self.send_response(307)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif page == "/missing":
            self.send_error(404)
        elif page == "/slow":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a")
            self.wfile.flush()
            self.release.wait(60)
        else:
            body = b"x" * 5000 if page == "/large" else b"hello"
            self.send_response(200)
            if page != "/unsized":
                self.send_header("Content-Length", str(len(body) + (page == "/short")))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay off the terminal."""


@pytest.fixture
def server() -> Iterator[str]:
    Pages.seen.clear()
    Pages.release.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Pages.release.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("page", ["/", "/unsized", "/a%20b", "/ä ö"])
def test_an_allowed_host_is_fetched(page: str, server: str) -> None:
    assert fetch(server + page, allow=LOOPBACK) == b"hello"


def test_hosts_are_allowed_by_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FETCH_ALLOW", "images.local, 127.0.0.0/8")

    assert load_input(server) == b"hello"


def test_an_allowed_name_is_asked_for_by_its_name(server: str) -> None:
    port = server.rpartition(":")[2]

    assert fetch(f"http://localhost:{port}/", allow=("localhost",)) == b"hello"
    assert Pages.seen[0][1]["Host"] == f"localhost:{port}"


def test_redirects_are_followed_and_each_target_is_checked(server: str) -> None:
    def to(url: str) -> str:
        return f"{server}/to/{base64.urlsafe_b64encode(url.encode()).decode()}"

    assert fetch(to("/"), allow=LOOPBACK) == b"hello"
    with pytest.raises(RequestError, match=r"169\.254\.169\.254, which is not a public address"):
        fetch(to("http://169.254.169.254/latest/meta-data"), allow=LOOPBACK)
    with pytest.raises(RequestError, match="leads to file:, only http and https"):
        fetch(to("file:///etc/passwd"), allow=LOOPBACK)
    with pytest.raises(RequestError, match="redirects more than 5 times"):
        fetch(f"{server}/loop", allow=LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2001:db8::1]",
        "localhost",
    ],
)
def test_addresses_that_are_not_public_are_never_reached(host: str) -> None:
    with pytest.raises(RequestError, match=r"not a public address|is not found") as caught:
        fetch(f"http://{host}:9/x", allow=())

    assert caught.value.remedy


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address: str) -> None:
    assert fetcher._is_public(ipaddress.ip_address(address))


def test_a_name_is_resolved_once_and_the_checked_address_is_used(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer of the resolver, the private one of a rebinding attack, is never asked for."""
    port = int(server.rpartition(":")[2])
    answers: list[str] = []

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        answers.append(host)
        address = "127.0.0.1" if len(answers) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    real = socket.create_connection
    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address)
        sock = socket.socket()
        sock.settimeout(timeout)
        sock.connect(address)
        return sock

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)

    assert real is not connect
    assert fetch(f"http://rebind.example:{port}/", allow=LOOPBACK) == b"hello"
    assert (answers, connected) == (["rebind.example"], [("127.0.0.1", port)])
    assert Pages.seen[0][1]["Host"] == f"rebind.example:{port}"


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    with pytest.raises(RequestError, match=r"10\.0\.0\.1, which is not a public address"):
        fetch("http://mixed.example/", allow=())


@pytest.mark.parametrize(
    ("page", "limits", "problem"),
    [
        ("/missing", FetchLimits(), "answers 404"),
        ("/large", FetchLimits(max_bytes=4999), "is larger than 4,999 bytes"),
        ("/unsized", FetchLimits(max_bytes=4), "is larger than 4 bytes"),
        ("/short", FetchLimits(), "ended 1 bytes early"),
        ("/slow", FetchLimits(timeout_s=0.2), "takes longer than 0.2 s"),
    ],
)
def test_what_a_server_does_wrong_is_one_sentence(page: str, limits: FetchLimits, problem: str, server: str) -> None:
    with pytest.raises(RequestError, match=problem) as caught:
        fetch(f"{server}{page}?token=secret", limits, allow=LOOPBACK)

    assert "secret" not in str(caught.value)
    assert caught.value.remedy


def test_credentials_are_refused_and_not_shown() -> None:
    with pytest.raises(RequestError, match="carries a user name or password") as caught:
        fetch("http://me:hunter2@example.com/a?key=secret", allow=())

    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "http://example.com/a?..." in caught.value.problem


def test_no_credentials_or_cookies_are_sent(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://10.0.0.1:1")

    fetch(server, allow=LOOPBACK)

    assert set(Pages.seen[0][1]) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


def test_nothing_listening_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(RequestError, match="can not be reached"):
            fetch(f"http://127.0.0.1:{free.getsockname()[1]}/", allow=LOOPBACK)


def test_plain_http_behind_https_is_one_sentence(server: str) -> None:
    with pytest.raises(RequestError, match="can not be fetched"):
        fetch(server.replace("http:", "https:"), allow=LOOPBACK)


def test_a_bad_allow_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SGLANG_FETCH_ALLOW: '10\.0\.0\.0/99' is neither"):
        fetch("http://example.com", allow=("10.0.0.0/99",))


@pytest.mark.parametrize("name", ["{}", "file://{}"])
def test_files_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"content")

    assert load_input(name.format(path)) == b"content"


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("{}/none.png", "there is no such file"),
        ("{}", "is a folder, not a file"),
        ("/dev/null", "is a device or a pipe"),
        ("file://elsewhere/a.png", "a file of another machine"),
        ("ftp://example.com/a.png", "ftp: is not read"),
        ("data:image/png;base64", "has no comma"),
        ("data:image/png;base64,???", "is not base64"),
        ("{}/large", "is larger than 10 bytes"),
        ("data:,01234567890", "is larger than 10 bytes"),
        ("http://", "only http and https are fetched"),
        ("http://[::1", "is not a URL"),
        ("http://a:99999/", "is not a URL"),
    ],
)
def test_what_can_not_be_read_is_one_sentence(reference: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 11)

    with pytest.raises(RequestError, match=problem) as caught:
        load_input(reference.format(tmp_path), FetchLimits(max_bytes=10))

    assert "\n" not in caught.value.problem
    assert caught.value.remedy


def test_files_are_not_for_strangers(tmp_path: Path) -> None:
    for reference in (str(tmp_path / "a.png"), f"file://{tmp_path}/a.png"):
        with pytest.raises(RequestError, match="is not a URL"):
            load_input(reference, allow_files=False)


@pytest.mark.parametrize(
    ("url", "content"), [("data:,a%20b", b"a b"), ("data:text/plain;base64,aGVs\nbG8=", b"hello"), ("DATA:,x", b"x")]
)
def test_data_urls_are_decoded(url: str, content: bytes) -> None:
    assert load_input(url) == content


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("https://u:p@example.com/a.png?sig=1#x", "https://example.com/a.png?..."),
        ("data:image/png;base64,AAAA", "data:image/png;base64,..."),
        ("a.png", "a.png"),
        ("x" * 500, "x" * 120 + "..."),
    ],
)
def test_references_are_shown_without_secrets(reference: str, shown: str) -> None:
    assert shown_reference(reference) == shown
