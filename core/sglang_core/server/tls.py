"""The certificate of the server, looked at before anything is served with it."""

import ssl
from pathlib import Path

from ..errors import ConfigError
from ..options.server import ServerOptions


def check_certificate(options: ServerOptions) -> None:
    """See that certificate and key can be read and belong together.

    :raises ConfigError: if not.
    """
    certificate = options.ssl_certfile
    if certificate is None:
        return
    key = options.ssl_keyfile or certificate
    for flag, path in (("--ssl-certfile", certificate), ("--ssl-keyfile", key)):
        _check_readable(flag, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Never the terminal: without a password of its own OpenSSL asks for one there.
        context.load_cert_chain(certificate, key, password=lambda: options.ssl_keyfile_password or "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        words = str(reason).replace("_", " ").lower()
        raise ConfigError(
            f"--ssl-certfile {certificate} and --ssl-keyfile {key} can not be used together: {words}",
            "give a certificate chain and its private key in PEM, and --ssl-keyfile-password if it has one",
        ) from error


def _check_readable(flag: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise ConfigError(f"{flag} {path}: there is no such file", "check the path") from error
    except OSError as error:
        raise ConfigError(
            f"{flag} {path}: can not be read: {error.strerror}", "check the path and its rights"
        ) from error
