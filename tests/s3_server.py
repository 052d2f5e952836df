"""An S3 server in a process of its own, and a proxy before it that goes wrong as networks do."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from attrs import define, field, frozen

_START_S = 120


@contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """Run moto's server; give the body its address."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield _address(process)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _address(process: "subprocess.Popen[str]") -> str:
    """Wait until the server says where it listens; what it says after that goes by unread."""
    lines: list[str] = []
    is_known = threading.Event()

    def read() -> None:
        with suppress(ValueError):  # closed at the end of the tests
            for line in process.stderr or ():
                if not is_known.is_set():
                    lines.append(line)
                if "Running on http" in line:
                    is_known.set()

    threading.Thread(target=read, daemon=True).start()
    is_known.wait(_START_S)
    found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", "".join(lines))
    assert found, f"the S3 server did not start: {lines}"
    return found[1]


def reset(address: str) -> None:
    """Forget everything that the server holds."""
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()


@frozen(kw_only=True)
class Fault:
    """What becomes of one request.

    ``drop``: the connection ends before the server sees it. ``truncate_upload``: the server gets half of the body.
    ``lose_answer``: the server does its work, and the answer is lost. ``truncate_answer``: half of its body comes.
    ``hang``: nothing comes until the proxy is closed. ``answer``: the proxy answers itself.
    """

    kind: Literal["drop", "truncate_upload", "lose_answer", "truncate_answer", "hang", "answer"]
    status: int = 503
    body: bytes = b""
    headers: dict[str, str] = field(factory=dict)


Rule = Callable[[str, str], Fault | None]


@define
class FaultyProxy:
    """Passes requests on to ``target``; ``rule`` is asked for the fault of each, by method and path."""

    target: str
    rule: Rule = field(default=lambda method, path: None)
    #: (method, path) of each request, and the bytes of its body.
    requests: list[tuple[str, str]] = field(factory=list)
    is_over: threading.Event = field(factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "FaultyProxy":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.is_over.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def times(self, method: str, part: str = "") -> int:
        """Return how often a method came with ``part`` in its path."""
        return sum(1 for seen, path in self.requests if seen == method and part in path)


def first(number: int, fault: Fault, method: str = "PUT", part: str = "") -> Rule:
    """Return a rule: the first ``number`` requests of a method with ``part`` in their path go wrong."""
    left = [number]

    def rule(seen: str, path: str) -> Fault | None:
        if seen != method or part not in path or not left[0]:
            return None
        left[0] -= 1
        return fault

    return rule


def s3_error(code: str, status: int = 403, message: str = "said the server") -> Fault:
    """Return an answer in the storage's own words."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    return Fault(kind="answer", status=status, body=body, headers={"Content-Type": "application/xml"})


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Say nothing."""

    def _handle(self) -> None:
        self.proxy.requests.append((self.command, self.path))
        fault = self.proxy.rule(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if fault is None or fault.kind in ("lose_answer", "truncate_answer"):
                self._answer(*self._ask(body), fault)
            elif fault.kind == "answer":
                self._answer(fault.status, dict(fault.headers), fault.body, None)
            else:
                self._break(fault, body)
        except OSError:  # the client has given up
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # names of the base class

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        host, port = self.proxy.target.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def _break(self, fault: Fault, body: bytes) -> None:
        self.close_connection = True
        if fault.kind == "hang":
            self.proxy.is_over.wait(60)
        elif fault.kind == "truncate_upload":
            host, port = self.proxy.target.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as upstream:
                head = [f"{self.command} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in self.headers.items())]
                upstream.sendall("\r\n".join([*head, "", ""]).encode() + body[: len(body) // 2])
                upstream.shutdown(socket.SHUT_WR)
                upstream.settimeout(30)
                while upstream.recv(65536):  # whatever the server makes of it
                    pass

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "lose_answer":
            self.close_connection = True
            return
        self.send_response_only(status)
        length = headers.get("Content-Length", "") if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)


def require_keys(address: str, is_required: bool = True) -> None:
    """Let the server refuse requests whose keys it does not know, or take any again."""
    count = b"0" if is_required else b"inf"
    request = urllib.request.Request(
        f"{address}/moto-api/reset-auth", data=count, headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).close()
