"""The file of API keys: names, scopes, priorities and rates."""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..options.sources import read_config_file
from ..registry import closest
from .auth import SCOPES, ApiKey
from .rates import parse_rate

logger = logging.getLogger(__name__)

_FIELDS = ("name", "key", "sha256", "scopes", "priority", "rate")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
#: Largest distance of a priority from 0, either way.
MAX_PRIORITY = 1000
_PRIORITY_REMEDY = f"give priority a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, or leave it out for 0"
_EXAMPLE = "write keys: [{name: alice, sha256: ..., scopes: [generate]}]"


def read_key_file(path: Path) -> list[tuple[bytes, ApiKey]]:
    """Return the keys of a YAML or JSON file, each with its SHA-256.

    :raises ConfigError: if the file can not be read, or an entry is wrong; no key is in the message.
    """
    entries = {entry.key: entry.value for entry in read_config_file(path, "--api-key-file")}
    unknown = sorted(set(entries) - {"keys"})
    if unknown:
        raise ConfigError(f"--api-key-file {path}: unknown key {unknown[0]!r}", _EXAMPLE)
    listed = entries.get("keys")
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"--api-key-file {path}: it holds no list of keys", _EXAMPLE)
    found = [_read_entry(entry, f"--api-key-file {path}: entry {number}") for number, entry in enumerate(listed, 1)]
    _warn_of_readers(path, listed)
    return found


def _read_entry(entry: Any, place: str) -> tuple[bytes, ApiKey]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{place} is no mapping", _EXAMPLE)
    for field in entry:
        if field not in _FIELDS:
            close = closest(str(field), _FIELDS)
            raise ConfigError(f"{place}: unknown key {str(field)!r}", f"use {close or ', '.join(_FIELDS)}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: the name is missing or no plain word", "give it a name such as alice")
    scopes = entry.get("scopes", ["generate"])
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise ConfigError(f"{place} ({name}): scopes are wrong", f"give a list of {', '.join(SCOPES)}")
    priority = entry.get("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise ConfigError(f"{place} ({name}): the priority is no whole number", _PRIORITY_REMEDY)
    if abs(priority) > MAX_PRIORITY:
        problem = f"{place} ({name}): the priority is {priority}, it goes from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        raise ConfigError(problem, _PRIORITY_REMEDY)
    rate = entry.get("rate")
    try:
        parsed = None if rate is None else parse_rate(str(rate))
    except ValueError as error:
        raise ConfigError(f"{place} ({name}): {error}", "write it like 60/minute") from error
    key = ApiKey(name=name, scopes=frozenset(scopes), priority=priority, rate=parsed)
    return _digest(entry, f"{place} ({name})"), key


def _digest(entry: Mapping[str, Any], place: str) -> bytes:
    key, digest = entry.get("key"), entry.get("sha256")
    if (key is None) == (digest is None):
        raise ConfigError(f"{place}: exactly one of key and sha256 is needed", "printf %s KEY | sha256sum")
    if key is not None:
        if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"{place}: the key is no word of ASCII characters", "openssl rand -hex 32")
        return hashlib.sha256(key.encode()).digest()
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ConfigError(f"{place}: sha256 is not 64 hexadecimal digits in quotes", "printf %s KEY | sha256sum")
    return bytes.fromhex(digest)


def _warn_of_readers(path: Path, listed: list[Any]) -> None:
    if any("key" in entry for entry in listed) and path.stat().st_mode & 0o077:
        logger.warning("--api-key-file %s holds keys and others may read it: chmod 600, or write sha256 instead", path)
