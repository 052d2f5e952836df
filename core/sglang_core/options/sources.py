"""Reading settings from configuration files and from the environment."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ..errors import ConfigError
from ..registry import closest
from .fields import OptionField
from .groups import OptionGroup
from .namespace import OptionNamespace
from .settings import Given, Origin, Settings, merge


@frozen(kw_only=True)
class FileEntry:
    """One key of a configuration file. ``line`` and ``column`` count from 1."""

    key: str
    value: Any
    line: int
    column: int


def read_config_file(path: Path, label: str = "--config") -> list[FileEntry]:
    """Return the entries of a JSON or YAML file.

    :param label: how messages call the setting that named the file.
    :raises ConfigError: if the file cannot be read, is of another kind, or is not one mapping.
    """
    suffix = path.suffix.lower()
    if suffix not in {".json", ".yaml", ".yml"}:
        raise ConfigError(
            f"{label} {path}: {suffix or 'a name without extension'} is not a known format",
            "name the file .yaml, .yml or .json",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without BOM
    except FileNotFoundError as error:
        raise ConfigError(f"{label} {path}: there is no such file", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label} {path}: it is not text in UTF-8", "save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(
            f"{label} {path}: cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    return _json_entries(path, text) if suffix == ".json" else _yaml_entries(path, text)


def _yaml_entries(path: Path, text: str) -> list[FileEntry]:
    from ruamel.yaml import YAML  # 70 ms, and only where a file is given
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        document: Any = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {error.problem}", "correct the YAML at this place") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: {error}", "correct the YAML") from error
    if document is None:
        return []
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: the file is not a mapping", "write one 'key: value' a line")
    entries = []
    mapping: Any = document  # the YAML library's own class, which knows the places of its keys
    for key, value in mapping.items():
        line, column = mapping.lc.key(key)
        entries.append(FileEntry(key=str(key), value=_plain(value), line=line + 1, column=column + 1))
    return entries


def _plain(value: Any) -> Any:
    """Return plain Python values in place of the YAML library's own."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)  # dates


def _json_entries(path: Path, text: str) -> list[FileEntry]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{path}:{error.lineno}:{error.colno}: {error.msg}"
        raise ConfigError(problem, "correct the JSON at this place") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: the JSON is nested too deeply", 'write {"key": value, ...}') from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: the file is not a JSON object", 'write {"key": value, ...}')
    entries: list[FileEntry] = []
    for key, value, offset in _top_level_items(text):
        line = text.count("\n", 0, offset) + 1
        column = offset - (text.rfind("\n", 0, offset) + 1) + 1
        if any(entry.key == key for entry in entries):
            raise ConfigError(f"{path}:{line}:{column}: the key {key!r} stands twice", "delete one of the two")
        entries.append(FileEntry(key=key, value=value, line=line, column=column))
    return entries


def _top_level_items(text: str) -> list[tuple[str, Any, int]]:
    """Return key, value and the key's offset for each item of a JSON object that is known to be valid."""
    decoder = json.JSONDecoder()

    def skip(offset: int, characters: str) -> int:
        while offset < len(text) and text[offset] in characters:
            offset += 1
        return offset

    space = " \t\r\n"
    items = []
    offset = skip(0, space + "{")
    while text[offset] != "}":
        key, end = decoder.raw_decode(text, offset)
        value, after = decoder.raw_decode(text, skip(end, space + ":"))
        items.append((key, value, offset))
        offset = skip(after, space + ",")
    return items


def given_in_file(
    path: Path, namespace: OptionNamespace, groups: Sequence[OptionGroup], ignored: Sequence[OptionGroup]
) -> list[Given]:
    """Return the settings of a configuration file. Keys may be written with dashes, dotted, or as an alias.

    :raises ConfigError: for an unknown key; file, line, column and the closest key are named.
    """
    givens: list[Given] = []
    seen: dict[str, str] = {}
    for entry in read_config_file(path):
        head, dot, rest = entry.key.partition(".")
        key = head.replace("-", "_") + dot + rest
        label = f"{path}:{entry.line}:{entry.column} ({entry.key})"
        target = namespace.find(key, groups)
        if target is None:
            if namespace.find(key, ignored) is not None:
                continue
            raise _unknown_key(label, key, namespace.known_keys([*groups, *ignored]))
        slot = f"{target.field.name}.{target.entry}" if target.entry else target.field.name
        if slot in seen:
            raise ConfigError(f"{label}: already set as {seen[slot]!r} in this file", "delete one of the two")
        seen[slot] = entry.key
        origin = Origin(kind="file", label=label)
        givens.append(Given(field=target.field, value=entry.value, origin=origin, entry=target.entry))
    return givens


def _unknown_key(label: str, key: str, known: Sequence[str]) -> ConfigError:
    close = closest(key, known)
    remedy = f"use {close!r}" if close else "delete it, or see --print-config for the known keys"
    return ConfigError(f"{label}: unknown key {key!r}", remedy)


def given_in_environment(groups: Sequence[OptionGroup], environment: Mapping[str, str] | None = None) -> list[Given]:
    """Return the settings that environment variables set; an empty one counts as unset, a list is split at commas."""
    values = os.environ if environment is None else environment
    return [
        Given(
            field=field,
            value=_words(field, values[variable]),
            origin=Origin(kind="environment", label=f"${variable}"),
        )
        for group in groups
        for field in group.fields
        if (variable := field.details.env) and values.get(variable)
    ]


def settings_from_environment(*groups: OptionGroup) -> Settings:
    """Return settings as environment variables alone set them, for what runs without a command line.

    :raises ConfigError: for a value that its setting does not take.
    """
    return merge(groups, [given_in_environment(groups)])


def _words(field: OptionField, text: str) -> str | list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if field.shape.is_many else text
