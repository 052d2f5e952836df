"""The one way to read what a user or a request refers to: files, ``data:`` URLs, ``http(s)`` URLs.

A URL in a request is chosen by somebody else than the one whose network it is fetched in. So a fetch never reaches an
address that is not public, whatever the host name says, resolves to, or redirects to: names are resolved once, every
address is checked, and the connection is made to the checked address, not to the name again.
"""

import base64
import binascii
import contextlib
import ipaddress
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from .errors import ConfigError, RequestError

if TYPE_CHECKING:
    import http.client

ALLOW_VARIABLE = "SGLANG_FETCH_ALLOW"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 64 * 1024
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_LONGEST_SHOWN = 120
T = TypeVar("T")


@frozen(kw_only=True)
class FetchLimits:
    """What a fetch may take. ``timeout_s`` is the whole fetch, from resolving to the last byte, redirects included."""

    max_bytes: int = 100 * 2**20
    timeout_s: float = 60.0
    max_redirects: int = 5


def load_input(
    reference: str,
    limits: FetchLimits | None = None,
    *,
    allow: Sequence[str] | None = None,
    allow_files: bool = True,
) -> bytes:
    """Return the bytes that a reference stands for: a path, a ``file://``, ``data:`` or ``http(s)`` URL.

    :param allow: hosts, addresses and networks that may be reached although they are not public; by default those of
        ``SGLANG_FETCH_ALLOW``.
    :param allow_files: false for references that do not come from the user of this machine.
    :raises RequestError: if it cannot be read or is larger than the limits allow; the message names it without secrets.
    """
    limits = limits or FetchLimits()
    scheme = reference.partition(":")[0].lower()
    if scheme == "data":
        return _decode_data_url(reference, limits)
    if scheme in {"http", "https"}:
        return fetch(reference, limits, allow=allow)
    if "://" in reference and scheme != "file":
        raise RequestError(f"{shown_reference(reference)}: {scheme}: is not read", "use http, https, data: or a file")
    if not allow_files:
        raise RequestError(f"{shown_reference(reference)} is not a URL", "give an http(s) or a data: URL")
    return _read_file(reference, limits)


def fetch(url: str, limits: FetchLimits | None = None, *, allow: Sequence[str] | None = None) -> bytes:
    """Return the body of an ``http`` or ``https`` URL. No proxy, cookie or credential is used.

    :raises RequestError: if the URL or a redirect leads to an address that is not public, or the fetch fails.
    """
    limits = limits or FetchLimits()
    permitted = _Permitted(allowed_from_environment() if allow is None else allow)
    deadline = time.monotonic() + limits.timeout_s
    shown = shown_reference(url)
    for _ in range(limits.max_redirects + 1):
        target = _parse(url, shown)
        answer = _visit(target, permitted, limits, deadline, shown)
        if isinstance(answer, bytes):
            return answer
        url = urllib.parse.urljoin(url, answer)
    raise RequestError(f"{shown} redirects more than {limits.max_redirects} times", "give the final address")


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float = 15.0,
    allow: Sequence[str] | None = None,
) -> int:
    """Send a body to an ``http`` or ``https`` URL and return the status of the answer. Redirects are not followed.

    :param allow: as for :func:`fetch`.
    :raises RequestError: if the URL leads to an address that is not public, or nobody answers in time.
    """
    permitted = _Permitted(allowed_from_environment() if allow is None else allow)
    shown = shown_reference(url)
    message = _Message("POST", body, {"User-Agent": "sglang", **headers})
    deadline = time.monotonic() + timeout_s
    return _exchange(
        _parse(url, shown), permitted, deadline, timeout_s, shown, message, lambda answer: int(answer.status)
    )


def check_address(url: str, *, allow: Sequence[str] | None = None) -> None:
    """Refuse a URL that can be seen to lead to a place that is not public, without asking the network.

    :raises RequestError: if it is no ``http`` or ``https`` URL, carries a password, or its host is such an address.
    """
    target = _parse(url, shown_reference(url))
    try:
        address = ipaddress.ip_address(target.host)
    except ValueError:  # a name: what it means is looked up when it is used
        return
    permitted = _Permitted(allowed_from_environment() if allow is None else allow)
    _check_public(address, target.host, permitted, shown_reference(url))


def allowed_from_environment() -> tuple[str, ...]:
    """Return the hosts and networks of ``SGLANG_FETCH_ALLOW``."""
    return tuple(filter(None, (entry.strip() for entry in os.environ.get(ALLOW_VARIABLE, "").split(","))))


def shown_reference(reference: str) -> str:
    """Return a reference as messages may show it: without credentials, query and fragment, and not endless."""
    if reference[:5].lower() == "data:":
        return f"{reference[:40].partition(',')[0]},..."
    if "://" in reference:
        try:
            parts = urllib.parse.urlsplit(reference)
            host = parts.netloc.rpartition("@")[2]
            reference = f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")
        except ValueError:
            reference = reference.partition("?")[0].rpartition("@")[2]
    return reference if len(reference) <= _LONGEST_SHOWN else f"{reference[:_LONGEST_SHOWN]}..."


@frozen
class _Target:
    scheme: str
    host: str
    port: int
    path: str


@frozen
class _Message:
    """What one request sends, beside its address."""

    method: str
    body: bytes | None
    headers: Mapping[str, str]


class _Permitted:
    """Hosts and networks that the operator allows although they are not public."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._hosts: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError as error:
                if "/" in entry:
                    problem = f"{ALLOW_VARIABLE}: {entry!r} is neither a host nor a network"
                    raise ConfigError(problem, "write entries like images.local or 10.0.0.0/8") from error
                self._hosts.add(entry.lower().rstrip("."))

    def covers(self, host: str, address: Address) -> bool:
        return host.lower().rstrip(".") in self._hosts or any(
            address in network for network in self._networks if network.version == address.version
        )


def _parse(url: str, shown: str) -> _Target:
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RequestError(f"{shown} is not a URL: {error}", "check the address") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise RequestError(
            f"{shown} leads to {parts.scheme or 'no scheme'}:, only http and https are fetched", "check the address"
        )
    if parts.username is not None or parts.password is not None:
        raise RequestError(f"{shown} carries a user name or password", "give a URL without them")
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        path += "?" + urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise RequestError(f"{shown} has no valid host name", "check the address") from error
    default = 443 if parts.scheme == "https" else 80
    return _Target(parts.scheme, ascii_host, port if port is not None else default, path)


def _visit(target: _Target, permitted: _Permitted, limits: FetchLimits, deadline: float, shown: str) -> bytes | str:
    """Make one request; return the body, or where it redirects to."""
    headers = {"User-Agent": "sglang", "Accept": "*/*", "Accept-Encoding": "identity"}

    def read(answer: "http.client.HTTPResponse") -> bytes | str:
        if answer.status in _REDIRECTS:
            return answer.headers.get("Location") or ""
        return _read_body(answer, limits, shown)

    return _exchange(target, permitted, deadline, limits.timeout_s, shown, _Message("GET", None, headers), read)


def _exchange(
    target: _Target,
    permitted: _Permitted,
    deadline: float,
    timeout_s: float,
    shown: str,
    message: _Message,
    read: "Callable[[http.client.HTTPResponse], T]",
) -> T:
    """Send one message and return what ``read`` makes of the answer."""
    import http.client  # with ssl and email a tenth of the time that --help may take, so only here

    sock = _connect(target, permitted, deadline, shown)
    # A server that sends a byte now and then never runs into a socket's timeout: the timer ends it all the same.
    held = [sock]
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [held])
    timer.daemon = True
    timer.start()
    try:
        connection = http.client.HTTPConnection(target.host, target.port)
        held[0] = connection.sock = _secured(sock, target)
        connection.request(message.method, target.path, body=message.body, headers=dict(message.headers))
        with connection.getresponse() as answer:
            result = read(answer)
        if time.monotonic() >= deadline:  # hung up on: a body of unknown length looks complete then
            raise TimeoutError
        return result
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline or isinstance(error, TimeoutError):
            raise RequestError(f"{shown} takes longer than {timeout_s:g} s", "repeat it, or give a file") from error
        raise RequestError(f"{shown} can not be fetched: {error}", "check the address") from error
    finally:
        timer.cancel()
        held[0].close()


def _hang_up(held: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        held[0].shutdown(socket.SHUT_RDWR)


def _connect(target: _Target, permitted: _Permitted, deadline: float, shown: str) -> socket.socket:
    """Resolve once, check every address, and connect to one of exactly these."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RequestError(f"{shown}: the host {target.host!r} is not found", "check the address") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for text in addresses:
        _check_public(ipaddress.ip_address(text.partition("%")[0]), target.host, permitted, shown)
    problem: OSError | None = None
    for text in addresses:
        try:
            timeout_s = max(0.001, deadline - time.monotonic())
            return socket.create_connection((text, target.port), timeout=timeout_s)
        except TimeoutError as error:
            raise RequestError(f"{shown} does not answer in time", "check the address, or try again") from error
        except OSError as error:
            problem = error
    raise RequestError(f"{shown} can not be reached: {problem}", "check the address") from problem


def _check_public(address: Address, host: str, permitted: _Permitted, shown: str) -> None:
    if not _is_public(address) and not permitted.covers(host, address):
        raise RequestError(
            f"{shown} leads to {address}, which is not a public address",
            f"give a public URL or a file; an operator can allow the host with {ALLOW_VARIABLE}",
        )


def _secured(sock: socket.socket, target: _Target) -> socket.socket:
    """Speak TLS where the scheme says so; the certificate must be that of the name, not of the address."""
    if target.scheme == "http":
        return sock
    import ssl

    return ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)


def _is_public(address: Address) -> bool:
    """Say whether an address is in the public internet, also where an IPv6 address stands for an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if embedded is None and any(address in network for network in _NAT64):
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is None and int(address) >> 32 == 0:  # ::a.b.c.d, the old IPv4-compatible form
            embedded = ipaddress.IPv4Address(int(address))
        if embedded is not None:
            return _is_public(embedded)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _read_body(answer: "http.client.HTTPResponse", limits: FetchLimits, shown: str) -> bytes:
    if answer.status != 200:  # the constant is in http, which is not imported here
        raise RequestError(f"{shown} answers {answer.status} {answer.reason}", "check the address")
    if (answer.length or 0) > limits.max_bytes:
        raise _too_large(shown, limits)
    body = bytearray()
    while chunk := answer.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > limits.max_bytes:
            raise _too_large(shown, limits)
    if answer.length:
        raise ValueError(f"it ended {answer.length:,} bytes early")
    return bytes(body)


def _too_large(shown: str, limits: FetchLimits) -> RequestError:
    return RequestError(f"{shown} is larger than {limits.max_bytes:,} bytes", "give a smaller file")


def _decode_data_url(url: str, limits: FetchLimits) -> bytes:
    head, separator, payload = url.partition(",")
    if not separator:
        raise RequestError(
            f"{shown_reference(url)} is not a data: URL, it has no comma", "write data:image/png;base64,..."
        )
    if len(payload) > limits.max_bytes * 4:
        raise _too_large(shown_reference(url), limits)
    content = urllib.parse.unquote_to_bytes(payload)
    if head.lower().endswith(";base64"):
        try:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"{shown_reference(url)} is not base64: {error}", "encode the file again") from error
    if len(content) > limits.max_bytes:
        raise _too_large(shown_reference(url), limits)
    return content


def _read_file(reference: str, limits: FetchLimits) -> bytes:
    shown = shown_reference(reference)
    if reference.lower().startswith("file:"):
        parts = urllib.parse.urlsplit(reference)
        if parts.netloc not in {"", "localhost"}:
            raise RequestError(f"{shown} names a file of another machine", "give a path of this machine")
        reference = urllib.parse.unquote(parts.path)
    path = Path(reference).expanduser()
    try:
        if path.is_dir():
            raise RequestError(f"{shown} is a folder, not a file", "give one file")
        if path.exists() and not path.is_file():
            raise RequestError(f"{shown} is a device or a pipe, not a file", "give a file")
        with path.open("rb") as file:
            content = file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise RequestError(f"{shown}: there is no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"{shown} can not be read: {error}", "check the path and its permissions") from error
    if len(content) > limits.max_bytes:
        raise _too_large(shown, limits)
    return content
