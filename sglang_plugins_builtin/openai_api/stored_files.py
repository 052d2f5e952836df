"""Answers that are files. Imported where one is given, for it needs Starlette."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from sglang_core import ApiError


class StoredFile(FileResponse):
    """A file of a job, with ranges and conditions.

    It is looked for when it is sent, for its job may be deleted between a check and that.

    :param name: what a browser saves it as.
    :param otherwise: returns the answer if there is no such file, or raises one.
    """

    def __init__(self, path: Path, media_type: str, name: str, otherwise: Callable[[], Awaitable[Response]]) -> None:
        super().__init__(path, media_type=media_type, filename=name, content_disposition_type="inline")
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; the head of the answer goes with its first bytes, when it is open."""
        head: Message | None = None
        has_begun = False

        async def send_when_open(message: Message) -> None:
            nonlocal head, has_begun
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    raise self._refused_range(message["status"])
                head = message
                return
            if head is not None:
                has_begun = True
                await send(head)
                head = None
            await send(message)

        try:
            self.stat_result = await asyncio.to_thread(_stat, self.path)
            self.set_stat_headers(self.stat_result)
            await super().__call__(scope, receive, send_when_open)
        except (FileNotFoundError, NotADirectoryError):
            if has_begun:
                raise
            await (await self._otherwise())(scope, receive, send)

    def _refused_range(self, status: int) -> ApiError:
        assert self.stat_result is not None
        size = self.stat_result.st_size
        if status == 416:
            headers = {"Content-Range": f"bytes */{size}"}
            return ApiError(416, f"the file has {size:,} bytes", code="range_not_satisfiable", headers=headers)
        message = "the header Range is no range of bytes; write it like bytes=0-1023"
        return ApiError(status, message, param="Range", code="invalid_value")


def _stat(path: str | os.PathLike[str]) -> os.stat_result:
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(path)
    return found
