"""The images that requests bring: checked, and stored below the input folder under names of the job."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from sglang_core import ApiError, OutputError, RequestError, load_input, shown_reference

from .fields import ImageInput
from .image_headers import ImageHeader, read_header

#: Larger images are refused before a pixel is decoded; the model's process has the same limit.
MAX_PIXELS = 100_000_000
#: How many URLs of all requests are fetched at a time: each holds a thread.
_fetching = asyncio.Semaphore(8)


@frozen(kw_only=True)
class StoredInputs:
    """Images of one job on disk, and a mask. ``digest`` tells their content, for idempotency."""

    folder: Path
    names: tuple[str, ...] = ()
    digest: str = ""
    #: Whether the last one is the mask of the first.
    has_mask: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that name the files."""
        paths = [str((self.folder / name).absolute()) for name in self.names]
        if self.has_mask:
            return {"image_path": paths[:-1], "mask_path": paths[-1]}
        return {"image_path": paths} if paths else {}

    def remove(self) -> None:
        """Delete the files of a job that was not accepted."""
        for name in self.names:
            (self.folder / name).unlink(missing_ok=True)


async def store_inputs(
    images: Sequence[ImageInput], folder: Path, job_id: str, mask: ImageInput | None = None
) -> StoredInputs:
    """Fetch what are URLs, check each, and store it; nothing stays behind if one is refused.

    :param mask: belongs to the first image.
    :raises ApiError: 400, with its field, if one can not be fetched, is no image, or has too many pixels.
    :raises OutputError: if it cannot be stored.
    """
    if not images:
        return StoredInputs(folder=folder)
    shown = [_shown(image, f"image {index}") for index, image in enumerate(images, start=1)]
    if mask is not None:
        images, shown = [*images, mask], [*shown, _shown(mask, "the mask")]
    contents = [await _content(image) for image in images]
    fields = [image.field for image in images]
    stored = await asyncio.to_thread(_store, contents, shown, fields, folder, job_id)
    return evolve(stored, has_mask=mask is not None)


def _shown(image: ImageInput, name: str) -> str:
    is_address = image.url is not None and not image.url.lower().startswith("data:")
    return f"{name} ({shown_reference(image.url)})" if image.url and is_address else name


async def _content(image: ImageInput) -> bytes:
    if image.url is None:
        return image.content or b""
    async with _fetching:
        with _said_of(image.field):
            return await asyncio.to_thread(load_input, image.url, allow_files=False)


@contextlib.contextmanager
def _said_of(field: str | None) -> Iterator[None]:
    """Say what is wrong with an image of its field in the request."""
    try:
        yield
    except RequestError as error:
        message = f"{error.problem}; try: {error.remedy}"
        raise ApiError(400, message, param=field, code="invalid_value") from error


def _checked(content: bytes, name: str) -> ImageHeader:
    header = read_header(content, name)
    if header.width * header.height > MAX_PIXELS:
        problem = f"{name} has {header.width} x {header.height} pixels, at most {MAX_PIXELS:,} are read"
        raise RequestError(problem, "give a smaller image")
    return header


def _store(
    contents: Sequence[bytes], shown: Sequence[str], fields: Sequence[str | None], folder: Path, job_id: str
) -> StoredInputs:
    headers = []
    for content, name, field in zip(contents, shown, fields, strict=True):
        with _said_of(field):
            headers.append(_checked(content, name))
    names = tuple(f"{job_id}_{index}.{header.format}" for index, header in enumerate(headers))
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()
    stored = StoredInputs(folder=folder, names=names, digest=digest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in zip(names, contents, strict=True):
            _write(folder / name, content)
    except OSError as error:
        with contextlib.suppress(OSError):
            stored.remove()
        problem = f"an uploaded image can not be stored in {folder}: {error.strerror or error}"
        raise OutputError(problem, "make room there, or choose another folder with --input-save-path") from error
    return stored


def _write(path: Path, content: bytes) -> None:
    """Write durably: the job that names the file is acknowledged after this."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy_inputs(names: Sequence[str], folder: Path, job_id: str) -> StoredInputs:
    """Copy the stored images of another job, which may be deleted before this one runs.

    :raises RequestError: if they are gone.
    :raises OutputError: if they cannot be stored.
    """
    try:
        contents = [(folder / name).read_bytes() for name in names]
    except OSError as error:
        raise RequestError("the images that the other job started from are gone", "upload them again") from error
    return _store(contents, names, [None] * len(names), folder, job_id)
