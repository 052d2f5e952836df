"""Requests as nobody friendly writes them: each ends with a refusal or a closed connection, and the server lives on.

``SGLANG_TEST_LONG=1`` adds random damage to good requests.
"""

import contextlib
import os
import random
import re
import socket
from pathlib import Path

import pytest
from http_process import DEADLINE_S, ServerProcess, wait_for

HOST = b"Host: localhost\r\n"
GOOD = b"POST /test/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nX-Thing: value\r\n\r\nbody"
LONG = os.environ.get("SGLANG_TEST_LONG") == "1"


def get(line=b"/test/echo", *headers, version=b"HTTP/1.1"):
    return b"GET " + line + b" " + version + b"\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


def post(*headers, body=b"", line=b"/test/echo"):
    return b"POST " + line + b" HTTP/1.1\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


#: What must not succeed.
REFUSED = {
    "noise": b"\x00\xff\x13\x37" * 50 + b"\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "smtp": b"EHLO evil.example\r\n\r\n",
    "empty lines": b"\r\n" * 500 + b"x\r\n\r\n",
    "http 0.9": b"GET /\r\n\r\n",
    "no version": b"GET /liveness\r\nHost: localhost\r\n\r\n",
    "lower case version": get(version=b"http/1.1"),
    "no host": b"GET /test/echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /test/echo HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n",
    "two equal hosts": b"GET /test/echo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "empty host": b"GET /test/echo HTTP/1.1\r\nHost:\r\n\r\n",
    "foreign host": b"GET /test/echo HTTP/1.1\r\nHost: evil.com\r\n\r\n",
    "host with user": b"GET /test/echo HTTP/1.1\r\nHost: localhost@evil.com\r\n\r\n",
    "host with path": b"GET /test/echo HTTP/1.1\r\nHost: localhost/x\r\n\r\n",
    "host with space": b"GET /test/echo HTTP/1.1\r\nHost: local host\r\n\r\n",
    "address of metadata services": b"GET /test/echo HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    "absolute address of another server": b"GET http://evil.com/test/echo HTTP/1.1\r\nHost: evil.com\r\n\r\n",
    "proxy connect": b"CONNECT evil.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "path without slash": get(b"test/echo"),
    "space in path": get(b"/test /echo"),
    "tab in path": get(b"/test\techo"),
    "null in path": get(b"/test/\x00echo"),
    "bytes above 127 in path": get("/tést".encode()),
    "encoded null": get(b"/test/echo%00"),
    "encoded newline": get(b"/test/echo%0d%0aX:%20y"),
    "broken percent": get(b"/test/%zz%"),
    "not utf-8 percent": get(b"/%ff%fe"),
    "dots": get(b"/../../../../etc/passwd"),
    "encoded dots": get(b"/%2e%2e/%2e%2e/etc/passwd"),
    "double encoded dots": get(b"/%252e%252e%252fetc%252fpasswd"),
    "backslashes": get(b"/..%5c..%5cetc%5cpasswd"),
    "two slashes": get(b"//evil.com/x"),
    "overlong utf-8 dots": get(b"/%c0%ae%c0%ae/etc/passwd"),
    "very long path": get(b"/" + b"a" * 70_000),
    "very long query": get(b"/test/echo?" + b"a" * 70_000),
    "unknown method": b"BREW /test/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "trace": b"TRACE /test/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "method with symbols": b"G(T /test/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "very long method": b"A" * 30_000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "header without name": get(b"/test/echo", b": value"),
    "header without colon": get(b"/test/echo", b"nonsense"),
    "space before colon": get(b"/test/echo", b"X-Thing : value"),
    "null in header": get(b"/test/echo", b"X-Thing: a\x00b"),
    "bare carriage return": get(b"/test/echo", b"X-Thing: a\rX-Other: b"),
    "large header": get(b"/test/echo", b"X-Thing: " + b"a" * 70_000),
    "thousands of headers": get(b"/test/echo", *(b"X-%d: %d" % (n, n) for n in range(5000))),
    "two different lengths": post(b"Content-Length: 4", b"Content-Length: 5", body=b"abcde"),
    "length of a list": post(b"Content-Length: 4, 5", body=b"abcde"),
    "negative length": post(b"Content-Length: -1"),
    "length with sign": post(b"Content-Length: +4", body=b"abcd"),
    "length in hex": post(b"Content-Length: 0x4", body=b"abcd"),
    "length as float": post(b"Content-Length: 4.0", body=b"abcd"),
    "empty length": post(b"Content-Length:", body=b"abcd"),
    "length of words": post(b"Content-Length: many"),
    "enormous length": post(b"Content-Length: 99999999999999999999999999999"),
    "length just beyond 64 bits": post(b"Content-Length: 18446744073709551617", body=b"a"),
    "length beyond the limit": post(b"Content-Length: 100001"),
    "length and chunks": post(b"Content-Length: 4", b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "unknown transfer encoding": post(b"Transfer-Encoding: gzip", body=b"abcd"),
    "hidden transfer encoding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "two transfer encodings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "chunk of no size": post(b"Transfer-Encoding: chunked", body=b"zz\r\nabcd\r\n0\r\n\r\n"),
    "negative chunk": post(b"Transfer-Encoding: chunked", body=b"-4\r\nabcd\r\n0\r\n\r\n"),
    "enormous chunk": post(b"Transfer-Encoding: chunked", body=b"fffffffffffffffffffff\r\nabcd"),
    "chunk longer than said": post(b"Transfer-Encoding: chunked", body=b"2\r\nabcd\r\n0\r\n\r\n"),
    "chunks beyond the limit": post(
        b"Transfer-Encoding: chunked", body=(b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 12 + b"0\r\n\r\n"
    ),
    "endless chunk extension": post(b"Transfer-Encoding: chunked", body=b"4;" + b"a" * 70_000),
    "page of another origin": post(b"Content-Length: 0", b"Origin: http://evil.com"),
    "page of no origin": post(b"Content-Length: 0", b"Origin: null"),
    "websocket": get(
        *(b"/test/echo", b"Connection: Upgrade", b"Upgrade: websocket"),
        *(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"),
    ),
    "websocket without key": get(b"/test/echo", b"Connection: Upgrade", b"Upgrade: websocket"),
    "http2 preface and noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    "not JSON": post(b"Content-Length: 3", body=b"{x}", line=b"/test/nowhere"),
    "half a request": b"GET /test/echo HT",
    "half the headers": b"GET /test/echo HTTP/1.1\r\nHost: localh",
    "half a body": post(b"Content-Length: 1000", body=b"abc"),
}

#: What is odd and allowed: the answer comes, and is whole.
ALLOWED = {
    "http 3.0": get(version=b"HTTP/3.0"),
    "folded header": get(b"/test/echo", b"X-Thing: a\r\n\tb: c\r\n Content-Length"),
    "method in lower case": b"get /test/echo HTTP/1.1\r\n" + HOST + b"\r\n",
    "http 1.0": get(version=b"HTTP/1.0", line=b"/test/echo"),
    "expects to go on": post(b"Content-Length: 4", b"Expect: 100-continue", body=b"abcd"),
    "two equal lengths": post(b"Content-Length: 4", b"Content-Length: 4", body=b"abcd"),
    "chunked in capitals": post(b"Transfer-Encoding: CHUNKED", body=b"4\r\nabcd\r\n0\r\n\r\n"),
    "trailers": post(b"Transfer-Encoding: chunked", body=b"4\r\nabcd\r\n0\r\nX-Thing: y\r\n\r\n"),
    "request id to split the log": get(b"/test/echo", b"X-Request-Id: a b%0d%0aINFO: forged"),
    "forwarded by nobody": get(b"/test/echo", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil.com"),
    "body of a reader": b"GET /test/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd",
    "method override": post(b"Content-Length: 0", b"X-HTTP-Method-Override: DELETE"),
    "range of nothing": get(b"/test/echo", b"Range: bytes=99999999999-0,-1,x"),
    "accepts nothing": get(b"/test/echo", b"Accept: */*;q=0", b"Accept-Encoding: *;q=0"),
    "cookies": get(b"/test/echo", b"Cookie: " + b"a=b; " * 1000),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(
        tmp_path_factory.mktemp("hostile"), "--port", "0", "--max-body-bytes", "100000", "--log-level", "warning"
    ) as server:
        yield server.ready()
        assert server.stop() == 0
        assert "Traceback" not in server.err


def talk(server, data, *, has_more=False):
    """Send bytes, say whether there are more, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        answer = b""
        try:
            connection.sendall(data)
            if not has_more:
                with contextlib.suppress(OSError):  # a server that has refused already may have hung up
                    connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except ConnectionError:
            pass
        return answer


def statuses(answer):
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d\d\d) ", answer)]
    return [status for status in found if status != 100]


def is_alive(server):
    return statuses(talk(server, get(b"/liveness"))) == [200]


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_hostile_request_is_refused_and_the_server_lives(server, data):
    answer = talk(server, data)

    assert all(400 <= status < 500 or status == 501 for status in statuses(answer)), answer[:300]
    assert b"num_bytes" not in answer
    assert is_alive(server)


@pytest.mark.parametrize("data", ALLOWED.values(), ids=ALLOWED)
def test_odd_request_is_answered(server, data):
    answer = talk(server, data)

    assert statuses(answer) == [200], answer[:300]
    assert b"num_bytes" in answer
    assert b"evil" not in answer
    assert b"forged" not in answer


def test_second_request_hidden_in_a_body_is_not_served(server):
    smuggled = b"GET /test/boom HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(server, post(b"Content-Length: %d" % len(smuggled), body=smuggled))

    assert statuses(answer) == [200]


def test_pipelined_requests_are_answered_in_order(server):
    requests = post(b"Content-Length: 1", body=b"a") + post(b"Content-Length: 2", body=b"ab")
    answer = talk(server, requests + get(b"/x", b"Connection: close"), has_more=True)

    assert statuses(answer) == [200, 200, 404]
    assert answer.index(b'"num_bytes":1') < answer.index(b'"num_bytes":2')


def test_client_that_hangs_up_leaves_no_open_connection(server):
    before = num_sockets(server)
    for _ in range(20):
        talk(server, get(b"/liveness"))

    wait_for(lambda: num_sockets(server) <= before + 1, "the end of the connections")


def num_sockets(server):
    return sum(is_socket(link) for link in Path(f"/proc/{server.process.pid}/fd").iterdir())


def is_socket(link):
    try:
        return str(link.readlink()).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


def test_hundred_connections_that_say_nothing_keep_nobody_out(server):
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for connection in idle[::2]:
        connection.sendall(b"GET /test/echo HTTP/1.1\r\nHost:")

    assert is_alive(server)
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("seed", range(2000 if LONG else 20))
def test_damaged_request_leaves_the_server_alive(server, seed):
    chance = random.Random(seed)
    data = bytearray(GOOD)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[place : place + chance.randint(1, 8)]
            case _:
                data[place:place] = chance.randbytes(chance.randint(1, 8))
        data = data or bytearray(b"x")

    assert all(status < 500 or status == 501 for status in statuses(talk(server, bytes(data))))
    if seed % 20 == 0:
        assert is_alive(server)
