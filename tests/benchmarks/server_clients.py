"""Clients of a server that take little of the processor, so that a benchmark measures the server and not them."""

import asyncio
import json
import socket
import time
from urllib.parse import urlsplit

import httpx

#: How long the steps of a run are watched at a time.
WINDOW_S = 3.0


class Connection:
    """A connection that is kept, and asks by hand, in a tenth of the time that an HTTP library takes."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._host = address.netloc

    def post(self, path: str, body: object) -> None:
        """Ask, and take the answer in."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = self._answers.readline()
        assert status.startswith(b"HTTP/1.1 200"), status
        length = 0
        while (line := self._answers.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert json.loads(self._answers.read(length))["data"]

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()


class Pollers:
    """Clients that ask for a job when told to, each on a connection of its own.

    By hand, in a tenth of the time that an HTTP library takes: the clients of others are on other machines.
    """

    def __init__(self, url: str, job: str) -> None:
        self._address = urlsplit(url)
        self._question = f"GET /v1/images/{job} HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n".encode()
        self.is_asking = True
        self.num_asked = 0

    async def ask(self, delay: float) -> None:
        """Be one of them, until cancelled; what is due while nobody asks is left out."""
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        pause_s = 10.0
        try:
            while True:
                if self.is_asking:
                    writer.write(self._question)
                    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
                    assert status.startswith("HTTP/1.1 200"), status
                    headers = dict(line.lower().split(": ", 1) for line in lines if line)
                    await reader.readexactly(int(headers["content-length"]))
                    self.num_asked += 1
                    pause_s = int(headers["openai-poll-after-ms"]) / 1000
                await asyncio.sleep(pause_s)
        finally:
            writer.close()


class Steps:
    """How far a run is, by the events that the server sends of it."""

    def __init__(self) -> None:
        self._index = 0

    async def follow(self, client: httpx.AsyncClient, job: str) -> None:
        """Listen until cancelled."""
        async with client.stream("GET", f"/v1/images/{job}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    self._index = event.get("step") or self._index

    async def seconds_each(self) -> float:
        """Return the mean time of a step for a while."""
        began, before = time.perf_counter(), self._index
        await asyncio.sleep(WINDOW_S)
        return (time.perf_counter() - began) / max(1, self._index - before)
