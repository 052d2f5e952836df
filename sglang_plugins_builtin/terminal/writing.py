"""Lines for streams of any encoding."""

import contextlib
from typing import TextIO


def write_line(stream: TextIO, text: str) -> None:
    """Write a line at once; what the stream's encoding lacks is escaped, and a reader that left is no error."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(BrokenPipeError):
        stream.write(f"{printable}\n")
        stream.flush()
