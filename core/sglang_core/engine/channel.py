"""How the server and its ranks talk: JSON messages over a connected socket, a binary payload beside them.

A message is two lengths (big-endian, 4 bytes each), then a JSON object in UTF-8, then the payload. Nothing is pickled:
what a rank sends cannot run code in the server.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from attrs import field, frozen

_LENGTHS = struct.Struct(">II")
MAX_JSON_BYTES = 32 * 2**20
MAX_PAYLOAD_BYTES = 64 * 2**20


class ChannelError(Exception):
    """Bytes that are no message: the other side is broken."""


@frozen(kw_only=True)
class Message:
    """One message. ``values`` are JSON values; ``kind`` travels among them."""

    kind: str
    values: Mapping[str, Any] = field(factory=dict)
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes that stand for the message.

        :raises TypeError: if a value is none of JSON.
        """
        text = json.dumps({"kind": self.kind, **self.values}, separators=(",", ":")).encode()
        return _LENGTHS.pack(len(text), len(self.payload)) + text + self.payload


def read_message(stream: BinaryIO) -> Message | None:
    """Wait for a message on a blocking stream; ``None`` when the other side has closed it.

    :raises ChannelError: if the bytes are no message.
    """
    head = stream.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    size, payload_size = _checked_sizes(head)
    body = stream.read(size + payload_size)
    return None if len(body) < size + payload_size else _decoded(body[:size], body[size:])


class MessageBuffer:
    """Takes bytes as they come, and gives the messages in them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        #: Where what is not taken yet begins.
        self._start = 0

    def add(self, chunk: bytes) -> None:
        """Take bytes in that follow those of before."""
        del self._bytes[: self._start]
        self._start = 0
        self._bytes += chunk

    def take(self) -> Message | None:
        """Return the next message; ``None`` if it is not complete yet.

        :raises ChannelError: if the bytes are no message.
        """
        begin = self._start + _LENGTHS.size
        if len(self._bytes) < begin:
            return None
        size, payload_size = _checked_sizes(self._bytes[self._start : begin])
        end = begin + size + payload_size
        if len(self._bytes) < end:
            return None
        text, payload = self._bytes[begin : begin + size], bytes(self._bytes[begin + size : end])
        self._start = end
        if end == len(self._bytes):  # a large payload need not stay until the next one comes
            self._bytes, self._start = bytearray(), 0
        return _decoded(text, payload)


def _checked_sizes(head: bytes | bytearray) -> tuple[int, int]:
    """Return the two lengths with which a message begins.

    :raises ChannelError: if they are beyond all reason.
    """
    size, payload_size = _LENGTHS.unpack(head)
    if size > MAX_JSON_BYTES or payload_size > MAX_PAYLOAD_BYTES:
        raise ChannelError(f"a message of {size:,} + {payload_size:,} bytes is announced")
    return size, payload_size


def _decoded(text: bytes | bytearray, payload: bytes) -> Message:
    """Return the message of its JSON text and payload.

    :raises ChannelError: if the text is none.
    """
    try:
        values = json.loads(text)
        kind = values.pop("kind")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ChannelError(f"a message is no JSON object with a kind: {error}") from error
    return Message(kind=str(kind), values=values, payload=payload)
