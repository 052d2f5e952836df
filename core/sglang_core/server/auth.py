"""Who may do what: API keys, and what each route asks for."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import frozen

from ..errors import ConfigError
from ..options.server import ServerOptions
from .errors import ApiError
from .rates import Rate

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: What a route asks for: nothing, any key, or a key with the scope. Without a word of its own it asks for ``generate``.
Access = Literal["open", "key", "generate", "admin"]
SCOPES: tuple[str, ...] = ("generate", "admin")
_ATTRIBUTE = "sglang_access"
_DEFAULT_ACCESS: Access = "generate"

E = TypeVar("E", bound=Callable[..., Any])


@frozen(kw_only=True)
class ApiKey:
    """A key as the rest of the server knows it: never the key itself.

    ``name`` owns the jobs that the key made. ``priority`` is that of its jobs, larger first. ``rate`` takes the place
    of the server's rate limit.
    """

    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    priority: int = 0
    rate: Rate | None = None


class KeyRing:
    """The keys that the server takes, by their SHA-256."""

    def __init__(self, keys: Sequence[tuple[bytes, ApiKey]] = ()) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        """Say whether requests need a key."""
        return bool(self._keys)

    def find(self, secret: bytes) -> ApiKey | None:
        """Return the key that a client sent, in a time that says nothing about the keys there are."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found


def read_keys(options: ServerOptions) -> KeyRing:
    """Return the keys of ``--api-key`` and ``--api-key-file``.

    A key of ``--api-key`` is named by the beginning of its SHA-256, so that its jobs stay its own when others come and
    go.

    :raises ConfigError: if the file can not be read or is wrong, or a name or key is there twice.
    """
    found: list[tuple[bytes, ApiKey]] = []
    for secret in options.api_key:
        digest = hashlib.sha256(secret.encode()).digest()
        found.append((digest, ApiKey(name=f"key-{digest.hex()[:8]}")))
    if options.api_key_file is not None:
        from .key_file import read_key_file  # most servers have none

        found += read_key_file(options.api_key_file)
    names, digests = [key.name for _, key in found], [digest for digest, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the API key {name!r} is given twice", "leave one of them out, or rename it")
    if len(set(digests)) < len(digests):
        raise ConfigError("one API key is given under two names", "give every name a key of its own")
    return KeyRing(found)


class Authentication:
    """Finds out whose request it is; routes decide whether that is enough."""

    def __init__(self, app: "ASGIApp", keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Read the Authorization header."""
        if scope["type"] == "http":
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            kind, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
            is_bearer = kind.lower() == b"bearer"
            scope["state"]["needs_key"] = bool(self._keys)
            scope["state"]["api_key"] = self._keys.find(secret.strip()) if is_bearer and self._keys else None
        await self._app(scope, receive, send)


class AccessGate:
    """In front of one route: lets in whom it is for."""

    def __init__(self, app: "ASGIApp", access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Refuse a request without the right key."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: "Scope") -> ApiError | None:
        state = scope["state"]
        key: ApiKey | None = state.get("api_key")
        if self._access == "open" or not state.get("needs_key"):
            return None
        if key is None:
            is_given = any(name == b"authorization" for name, _ in scope["headers"])
            message = "the API key is not one of this server's" if is_given else "this server needs an API key"
            return ApiError(
                401,
                f"{message}; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key" if is_given else "missing_api_key",
                headers={"WWW-Authenticate": 'Bearer realm="sglang"'},
            )
        if self._access == "key" or self._access in key.scopes:
            return None
        return ApiError(403, f"the API key {key.name!r} lacks the scope {self._access!r}", code="missing_scope")


def requires(access: Access) -> Callable[[E], E]:
    """Mark an endpoint, or an application that is mounted, with what it asks for: ``@requires("admin")`` above it."""

    def mark(endpoint: E) -> E:
        setattr(endpoint, _ATTRIBUTE, access)
        return endpoint

    return mark


def guard_routes(routes: Sequence[Any], inherited: Access = _DEFAULT_ACCESS) -> None:
    """Put an :class:`AccessGate` in front of every route, those inside mounts too."""
    for route in routes:
        inner = getattr(route, "endpoint", None) or getattr(route, "app", None)
        access: Access = getattr(inner, _ATTRIBUTE, inherited)
        nested = getattr(route, "routes", None)
        if nested:
            guard_routes(nested, access)
        elif getattr(route, "app", None) is not None:
            route.app = AccessGate(route.app, access)
