"""The sockets that the server listens on, open before anything else is done."""

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from ..errors import ConfigError, UnavailableError
from ..options.server import ServerOptions
from .host_check import is_loopback

_BACKLOG = 1024
_MAX_UDS_BYTES = 107


@frozen(kw_only=True)
class Listeners:
    """Open sockets that listen, and how people call the place."""

    sockets: Sequence[socket.socket]
    url: str
    #: Reached from other machines.
    is_public: bool = False
    #: File of the Unix socket, removed when the server ends.
    path: Path | None = None
    _inode: int | None = field(default=None)

    def close(self) -> None:
        """Stop listening and remove the Unix socket's file, unless it is somebody else's by now."""
        for one in self.sockets:
            one.close()
        if self.path is not None and self.path.exists() and self.path.stat().st_ino == self._inode:
            self.path.unlink()


def open_listeners(options: ServerOptions) -> Listeners:
    """Listen where the settings say.

    :raises ConfigError: if the place is none.
    :raises UnavailableError: if the port is taken, or the rights are missing.
    """
    scheme = "https" if options.ssl_certfile is not None else "http"
    if options.fd is not None:
        return _inherited(options.fd, scheme)
    if options.uds is not None:
        return _unix(options.uds, scheme)
    return _tcp(options.host.strip("[]"), options.port, scheme)


def _tcp(host: str, port: int, scheme: str) -> Listeners:
    opened: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            one = socket.socket(family, socket.SOCK_STREAM)
            opened.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            one.bind((address, opened[0].getsockname()[1] if len(opened) > 1 else port))
            one.listen(_BACKLOG)
    except OSError as error:
        for one in opened:
            one.close()
        raise _bind_error(error, host, port) from error
    bound = opened[0].getsockname()[1]
    is_public = not all(is_loopback(one.getsockname()[0]) for one in opened)
    return Listeners(sockets=opened, url=f"{scheme}://{_shown(host)}:{bound}", is_public=is_public)


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, str]]:
    """Yield what a name stands for, each address once."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no address has this name", "give an address such as 127.0.0.1") from error
    yield from dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bind_error(error: OSError, host: str, port: int) -> UnavailableError | ConfigError:
    place = f"{_shown(host)}:{port}"
    if error.errno == errno.EADDRINUSE:
        by = holder_of_port(port)
        return UnavailableError(
            f"the port {port} is taken{f' by {by}' if by else ''}: the server can not listen on {place}",
            f"stop that process, or choose another port: --port {port + 1 if port < 65_535 else port - 1}, "
            "or --port 0 for any free one",
        )
    if error.errno == errno.EACCES:
        return UnavailableError(f"there is no permission to listen on {place}", "choose a port from 1024 on: --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"--host {host} is no address of this machine", "use 127.0.0.1, or 0.0.0.0 for all")
    return UnavailableError(f"the server can not listen on {place}: {error.strerror}", "choose other --host and --port")


def holder_of_port(port: int) -> str | None:
    """Return the process that listens on a port, as ``process 12 (name)``, where this system tells."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for words in (line.split() for line in lines):
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:  # 0A: it listens
                inodes.add(f"socket:[{words[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        try:
            if any(str(link.readlink()) in inodes for link in folder.iterdir()):
                return f"process {folder.parent.name} ({(folder.parent / 'comm').read_text().strip()})"
        except OSError:  # another user's, or gone by now
            continue
    return None


def _unix(path: Path, scheme: str) -> Listeners:
    if len(os.fsencode(path)) > _MAX_UDS_BYTES:
        raise ConfigError(
            f"--uds {path}: the path of a socket has at most {_MAX_UDS_BYTES} bytes", "choose a shorter path"
        )
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(str(path))
        one.listen(_BACKLOG)
    except OSError as error:
        one.close()
        raise UnavailableError(
            f"--uds {path}: the socket can not be made: {error.strerror}", "choose a folder that exists and is writable"
        ) from error
    return Listeners(sockets=[one], url=f"{scheme}+unix://{path}", path=path, inode=path.stat().st_ino)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is gone.

    :raises UnavailableError: if it is still there, or the file is no socket.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return
    if not is_socket:
        raise UnavailableError(f"--uds {path}: a file of this name exists and is no socket", "choose another name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise UnavailableError(f"--uds {path}: {error.strerror}", "choose another name") from error
        else:
            raise UnavailableError(f"--uds {path}: another server listens there", "stop it, or choose another name")


def _inherited(number: int, scheme: str) -> Listeners:
    try:
        one = socket.socket(fileno=number)
        is_listening = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError as error:
        raise ConfigError(f"--fd {number} is no open socket: {error.strerror}", "pass a socket that listens") from error
    if not is_listening or one.type != socket.SOCK_STREAM:
        raise ConfigError(f"--fd {number} is a socket that does not listen", "call listen() on it before")
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return Listeners(sockets=[one], url=f"{scheme}+unix://{name}")
    return Listeners(
        sockets=[one], url=f"{scheme}://{_shown(str(name[0]))}:{name[1]}", is_public=not is_loopback(str(name[0]))
    )
