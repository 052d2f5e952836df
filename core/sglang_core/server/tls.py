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
        raise _refusal(certificate, key, error, has_password=bool(options.ssl_keyfile_password)) from error


def _refusal(certificate: Path, key: Path, error: Exception, *, has_password: bool) -> ConfigError:
    """Say what is wrong with two files: OpenSSL's own words name the line of its code."""
    key_flag = "--ssl-certfile" if key == certificate else "--ssl-keyfile"
    content = key.read_bytes()
    if b"CERTIFICATE-----" not in certificate.read_bytes():
        return ConfigError(
            f"--ssl-certfile {certificate} holds no certificate in PEM", "give a certificate chain in PEM"
        )
    if b"PRIVATE KEY-----" not in content:
        remedy = "add --ssl-keyfile FILE" if key == certificate else "give the private key of the certificate in PEM"
        return ConfigError(f"{key_flag} {key} holds no private key in PEM", remedy)
    reason = str(getattr(error, "reason", None) or "")
    if reason == "KEY_VALUES_MISMATCH":
        problem = f"--ssl-certfile {certificate} and {key_flag} {key} do not belong together"
        return ConfigError(problem, "give the private key that the certificate was made for, in PEM")
    if b"ENCRYPTED" in content:
        problem = "the password does not open it" if has_password else "no password is given"
        remedy = "give its password in the variable SGLANG_SSL_KEYFILE_PASSWORD"
        return ConfigError(f"the private key in {key_flag} {key} is encrypted, and {problem}", remedy)
    words = reason.replace("_", " ").lower() or str(error)
    problem = f"--ssl-certfile {certificate} and {key_flag} {key} can not be used together: {words}"
    return ConfigError(problem, "give a certificate chain and its private key in PEM")


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
