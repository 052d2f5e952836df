"""Thumbnails and sprite sheets of clips, each made once and kept beside the clip."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sglang_core import ApiError, Job, JobOutput

from .contents import extension_of, read_output
from .stills import NO_LIBRARY

if TYPE_CHECKING:
    from sglang_core import Server

Still = Literal["thumbnail", "spritesheet"]
#: File ending and media type of each.
STILLS: dict[Still, tuple[str, str]] = {
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}
_TIMEOUT_S = 60.0
_MAX_ERROR_CHARACTERS = 300


class StillCache:
    """Makes pictures of clips in processes of their own, one at a time for each clip and two in all."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._slots = asyncio.Semaphore(2)
        self._locks: dict[Path, asyncio.Lock] = {}

    async def get(self, job: Job, output: JobOutput, still: Still) -> Path:
        """Return the picture, made now if it is not there.

        :raises ApiError: 404 if the clip is gone, 501 without the libraries, 500 if it cannot be made.
        """
        picture = self._server.output_folder / f"{job.id}_{output.index}.{STILLS[still][0]}"
        lock = self._locks.setdefault(picture, asyncio.Lock())
        try:
            async with lock:
                if not await asyncio.to_thread(picture.is_file):
                    async with self._slots:
                        await self._make(job, output, still, picture)
                    if await self._server.jobs.get(job.id) is None:  # deleted meanwhile, with all its files but this
                        await asyncio.to_thread(picture.unlink, missing_ok=True)
                        raise ApiError(404, f"{job.id} was deleted", code="video_not_found")
        finally:
            if not lock.locked():
                self._locks.pop(picture, None)
        return picture

    async def _make(self, job: Job, output: JobOutput, still: Still, picture: Path) -> None:
        clip = self._server.jobs.content_path(job, output.index)
        if clip is not None and await asyncio.to_thread(clip.is_file):
            try:
                await _run(still, clip, picture)
            except ApiError:
                if await asyncio.to_thread(clip.is_file):
                    raise
            else:
                return
        content = await read_output(self._server, job, output)  # it is uploaded or deleted, and not here any more
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"clip{extension_of(output.media_type)}"
            await asyncio.to_thread(copy.write_bytes, content)
            await _run(still, copy, picture)


async def _run(still: Still, clip: Path, picture: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"{__package__}.stills", still, str(clip), str(picture),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, errors = await process.communicate()
    except TimeoutError:
        errors = f"it took longer than {_TIMEOUT_S:g} s".encode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == NO_LIBRARY:
        message = f"this server can not make a {still}: it needs PyAV and Pillow (pip install 'sglang-plugins[video]')"
        raise ApiError(501, message, param="variant", code="not_available")
    if process.returncode != 0:
        reason = errors.decode("utf-8", "replace").strip().rpartition("\n")[2][:_MAX_ERROR_CHARACTERS]
        raise ApiError(500, f"the {still} of this clip can not be made: {reason}", param="variant", code="not_made")
