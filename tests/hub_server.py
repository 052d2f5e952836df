"""A small hub on loopback for the real huggingface_hub client: model folders under repo ids.

It speaks what the client asks for: model information, tree listing, HEAD, GET and range requests of files; weight
files are sent on to a second host name, as the hub sends them to its storage.
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from attrs import define, field, frozen


@frozen(kw_only=True)
class SeenRequest:
    """One request as the server got it."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    host: str


@define
class HubServer:
    """Serves ``repos`` until closed; use it as a context manager.

    :ivar gated: repos that nobody has access to yet.
    :ivar required_token: the token that every request needs, except those to the storage.
    :ivar cut_after: file paths whose next download ends after so many bytes, once.
    :ivar hold: file paths whose downloads send their first half, then wait for the event.
    :ivar ignore_ranges: answer range requests with the whole file.
    :ivar status: answer everything with this status.
    :ivar revisions: further names of branches and tags; all lead to the one commit.
    """

    repos: dict[str, Path] = field(factory=dict)
    gated: set[str] = field(factory=set)
    required_token: str | None = None
    cut_after: dict[str, int] = field(factory=dict)
    hold: dict[str, threading.Event] = field(factory=dict)
    ignore_ranges: bool = False
    status: int | None = None
    requests: list[SeenRequest] = field(factory=list)
    revisions: set[str] = field(factory=set)
    #: Set when a held download has sent its first half.
    is_held: threading.Event = field(factory=threading.Event)
    _server: ThreadingHTTPServer | None = None
    _snapshots: dict[tuple[object, ...], tuple[str, Mapping[str, bytes]]] = field(factory=dict, repr=False)

    def __enter__(self) -> "HubServer":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for event in self.hold.values():
            event.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, folder: Path) -> str:
        """Serve ``folder`` as ``repo``; return the commit."""
        self.repos[repo] = folder
        return self.commit(repo)

    def commit(self, repo: str) -> str:
        """Return the commit of a repo: a hash of what it holds now."""
        return self._snapshot(repo)[0]

    def files(self, repo: str) -> Mapping[str, bytes]:
        """Return the content of a repo by path."""
        return self._snapshot(repo)[1]

    def _snapshot(self, repo: str) -> tuple[str, Mapping[str, bytes]]:
        """Read a repo, again only when something has changed: hashing it for each request takes long."""
        folder = self.repos[repo]
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        signature = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
        if signature not in self._snapshots:
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
            digest = hashlib.sha1(usedforsecurity=False)
            for path, content in files.items():
                digest.update(path.encode() + b"\0" + content)
            self._snapshots[signature] = digest.hexdigest(), files
        return self._snapshots[signature]

    def downloads(self) -> list[str]:
        """Return the files whose content was asked for, in order."""
        pattern = re.compile(r"/resolve/[^/]+/(.+)|/storage/[^/]+/[^/]+/(.+)")
        found = [pattern.search(request.path) for request in self.requests if request.method == "GET"]
        return [match[1] or match[2] for match in found if match]


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        host = self.headers.get("Host", "")
        self.hub.requests.append(
            SeenRequest(
                method=self.command, path=path, range=self.headers.get("Range"), authorization=authorization, host=host
            )
        )
        if self.hub.status is not None:
            self._answer(self.hub.status, b"")
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            self._send_file(match[1], match[2], self.hub.commit(match[1]))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/(.+))?", path):
            self._api(match[1], match[2] or "revision", match[3] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        else:
            self._answer(404, b"")

    def _refusal(self, repo: str, revision: str) -> bool:
        token = self.hub.required_token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo not in self.hub.repos:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repo in self.hub.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", self.hub.commit(repo), *self.hub.revisions):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _api(self, repo: str, kind: str, revision: str) -> None:
        if self._refusal(repo, revision):
            return
        files = self.hub.files(repo)
        value: object
        if kind == "revision":
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            value = {"id": repo, "modelId": repo, "sha": self.hub.commit(repo), "siblings": siblings, "private": False}
        else:
            value = [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files.items()
            ]
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        if self._refusal(repo, revision):
            return
        commit, content = self.hub.commit(repo), self.hub.files(repo).get(path)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif path.endswith(".safetensors"):
            headers = {
                "Location": f"http://localhost:{self.hub.port}/storage/{repo}/{path}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{_etag(content)}"',
                "X-Linked-Size": str(len(content)),
            }
            self._answer(302, b"", headers)
        else:
            self._send_file(repo, path, commit)

    def _send_file(self, repo: str, path: str, commit: str) -> None:
        content = self.hub.files(repo)[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not self.hub.ignore_ranges:
            start = int(wanted[1])
            end = min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._answer(206, content[start : end + 1], headers, path)
        else:
            self._answer(200, content, headers, path)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, path: str = "") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self._send_body(body, path)
        except OSError:  # the client has gone: cancelled, or it had read enough
            self.close_connection = True

    def _send_body(self, body: bytes, path: str) -> None:
        cut = self.hub.cut_after.pop(path, None)
        if cut is not None:
            self.wfile.write(body[:cut])
            self.close_connection = True
            return
        if path in self.hub.hold:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.hub.is_held.set()
            self.hub.hold[path].wait(120)
            body = body[len(body) // 2 :]
        self.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
