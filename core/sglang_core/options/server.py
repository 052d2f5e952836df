"""The settings of the HTTP server itself."""

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import frozen, validators

from ..errors import ConfigError
from .fields import option

DEFAULT_PORT = 30_000
_ORIGIN = re.compile(r"\*|https?://[^/\s?#@]+")
_HOST_PATTERN = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")


def _is_rate(instance: object, attribute: Any, value: str | None) -> None:
    from ..server.rates import parse_rate  # only where somebody sets one

    if value is not None:
        parse_rate(value)


def _is_public_url(instance: object, attribute: Any, value: str | None) -> None:
    if value is None:
        return
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"expected an address such as https://images.example.com, not {value!r}")


def _are_origins(instance: object, attribute: Any, values: tuple[str, ...]) -> None:
    for value in values:
        if not _ORIGIN.fullmatch(value):
            raise ValueError(f"expected an origin such as https://app.example.com, or *, not {value!r}")


def _are_hosts(instance: object, attribute: Any, values: tuple[str, ...]) -> None:
    for value in values:
        if not _HOST_PATTERN.fullmatch(value):
            raise ValueError(f"expected a host name such as example.com or *.example.com, not {value!r}")


def _are_keys(instance: object, attribute: Any, values: tuple[str, ...]) -> None:
    for value in values:
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("expected keys of one word each, of printable ASCII characters")


@frozen(kw_only=True)
class ServerOptions:
    """HTTP server."""

    host: str = option(default="127.0.0.1", help="Address or name to listen on; 0.0.0.0 or :: for every network.")
    port: int = option(
        default=DEFAULT_PORT,
        help="Port to listen on; 0 takes a free one and prints it.",
        validator=[validators.ge(0), validators.le(65_535)],
    )
    strict_ports: bool = option(
        default=True, help="Refuse a port that is taken. Always so here: no other port is taken in its place."
    )
    uds: Path | None = option(default=None, metavar="PATH", help="Listen on a Unix socket instead of a port.")
    fd: int | None = option(
        default=None,
        metavar="N",
        help="Listen on a socket that is open already, as file descriptor N (socket activation).",
        validator=validators.optional(validators.ge(0)),
    )
    ssl_certfile: Path | None = option(default=None, metavar="FILE", help="Certificate chain (PEM): serve HTTPS.")
    ssl_keyfile: Path | None = option(
        default=None, metavar="FILE", help="Private key (PEM) of the certificate, unless it is in the same file."
    )
    ssl_keyfile_password: str | None = option(
        default=None, env="SGLANG_SSL_KEYFILE_PASSWORD", is_secret=True, help="Password of the private key."
    )
    public_url: str | None = option(
        default=None,
        metavar="URL",
        validator=_is_public_url,
        help="Address that clients use, for the URLs in answers; from the request's Host header if unset.",
    )
    trusted_host: tuple[str, ...] = option(
        default=(),
        aliases=("trusted_hosts",),
        metavar="NAME ...",
        validator=_are_hosts,
        help="Host names that requests may name, *.example.com too; others are refused.",
    )
    api_key: tuple[str, ...] = option(
        default=(),
        env="SGLANG_API_KEY",
        is_secret=True,
        metavar="KEY ...",
        validator=_are_keys,
        help="Keys that may do everything; requests need one as 'Authorization: Bearer KEY'.",
    )
    api_key_file: Path | None = option(
        default=None, metavar="FILE", help="YAML or JSON file of keys with names, scopes, priorities and rates."
    )
    cors_origin: tuple[str, ...] = option(
        default=(),
        aliases=("cors_origins",),
        metavar="ORIGIN ...",
        validator=_are_origins,
        help="Origins whose web pages may call the server; * for all.",
    )
    rate_limit: str | None = option(
        default=None,
        metavar="N/UNIT",
        validator=_is_rate,
        help="Most requests that start or change something, for each key or address: 60/minute, 2/second.",
    )
    max_body_bytes: int = option(
        default=64 * 2**20, help="Largest body of a request, in bytes.", validator=validators.ge(1)
    )
    max_pixels: int = option(
        default=4096 * 4096, help="Most pixels (width times height) of an output.", validator=validators.ge(1)
    )
    max_frames: int = option(default=1024, help="Most frames of a clip.", validator=validators.ge(1))
    max_steps: int = option(default=500, help="Most denoising steps of a request.", validator=validators.ge(1))
    max_outputs: int = option(default=10, help="Most outputs of one request.", validator=validators.ge(1))
    graceful_timeout_s: float = option(
        default=30.0,
        aliases=("http_graceful_shutdown_timeout",),
        help="When stopping, wait so many seconds for what runs; what is not done then stays queued.",
        validator=validators.ge(0),
    )
    served_model_name: tuple[str, ...] = option(
        default=(),
        metavar="NAME ...",
        help="Names of the model in the API: the first is shown, every one is accepted; the model's path if unset.",
    )
    input_save_path: Path = option(default=Path("inputs/uploads"), help="Folder for files that requests bring.")
    uploaded_content: Literal["redirect", "proxy"] = option(
        default="redirect",
        help="Answer for content that is uploaded and not here any more: a redirect to the storage, or the content "
        "itself, handed through.",
    )
    log_format: Literal["text", "json"] = option(default="text", help="Format of the log on stderr.")
    access_log_exclude_prefixes: tuple[str, ...] = option(
        default=(),
        aliases=("uvicorn_access_log_exclude_prefixes",),
        metavar="PATH ...",
        help="Paths that the access log leaves out, by how they begin.",
    )

    def __attrs_post_init__(self) -> None:
        if self.uds is not None and self.fd is not None:
            raise ConfigError("uds and fd are both given, and the server listens in one place", "leave one of them out")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigError("ssl_keyfile is given without a certificate", "add --ssl-certfile FILE")
        if not self.strict_ports:
            raise ConfigError(
                "strict_ports can not be turned off: a server that moves to another port is not found by its clients",
                "leave it out, or let --port 0 choose a free port",
            )
