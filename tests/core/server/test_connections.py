import socket

import httpx
import pytest
from http_process import DEADLINE_S


def test_head_and_body_of_an_answer_come_in_one_piece(plain_server):
    with socket.create_connection(("127.0.0.1", plain_server.port), timeout=DEADLINE_S) as connection:
        for _ in range(20):
            connection.sendall(b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
            piece = connection.recv(2**16)

            assert piece.startswith(b"HTTP/1.1 200")
            assert piece.endswith(b'\r\n\r\n{"status":"ok"}')


@pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "http2"])
def test_pieces_of_every_size_arrive_whole_and_in_order(plain_server, is_http2):
    expected = b"".join(bytes([number % 256]) * (1 + number * 977 % 150_000) for number in range(120))

    with (
        httpx.Client(http1=not is_http2, http2=is_http2, trust_env=False, timeout=DEADLINE_S) as client,
        client.stream("GET", f"{plain_server.url}/test/pieces") as answer,
    ):
        received = b"".join(answer.iter_bytes())

    assert answer.http_version == ("HTTP/2" if is_http2 else "HTTP/1.1")
    assert received == expected
