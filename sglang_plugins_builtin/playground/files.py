"""The files of the page. They are read once, so that no request names a path of the file system."""

import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from sglang_core import ApiError, requires

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

FOLDER = Path(__file__).with_name("static")
PAGE = "index.html"
#: Nothing from elsewhere, nothing inline; pictures may come from memory, where they are fetched with a key.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
#: A system's own table may lack these, or have them wrong, and a browser runs no module of another type.
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@frozen
class PageFile:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def read_files() -> Mapping[str, PageFile]:
    """Return the files by name."""
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.is_file()}


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    media_type = _MEDIA_TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def file_routes() -> "Sequence[BaseRoute]":
    """Return the routes of the page and of its files, open to all: they tell nothing about jobs."""
    from starlette.routing import Route

    files = read_files()

    @requires("open")
    async def show_page(request: "Request") -> "Response":
        return _response(request, files[PAGE])

    @requires("open")
    async def show_file(request: "Request") -> "Response":
        name = request.path_params["name"]
        if name not in files:
            raise ApiError(404, f"the playground has no file {name[:100]!r}", code="not_found")
        return _response(request, files[name])

    return [Route("/", show_page, methods=["GET"]), Route("/playground/{name}", show_file, methods=["GET"])]


def _response(request: "Request", file: PageFile) -> "Response":
    from starlette.responses import Response

    # Kept by browsers but asked about each time: after an update of the server no file of the old page is used.
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if _is_known(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _is_known(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or tags == ["*"]
