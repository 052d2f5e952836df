"""From what the user wrote (text, or a value of a file) to the type of the setting."""

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from .fields import OptionField, ValueShape, value_shape

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "json": "JSON",
}


def expected(shape: ValueShape) -> str:
    """Say in words what a setting takes."""
    one = f"one of {', '.join(shape.choices)}" if shape.kind == "choice" else _EXPECTED[shape.kind]
    if shape.is_mapping:
        return "a JSON object" if shape.kind == "json" else f"entries name=value, each value {one}"
    return f"one or more values, each {one}" if shape.is_many else one


def convert(field: OptionField, value: Any) -> Any:
    """Return ``value`` in the type of the setting; texts are read, other values are checked.

    :raises ValueError: if it is not of that type; the message says what was expected.
    """
    return _convert(field.annotation, value)


def _convert(annotation: Any, value: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(argument for argument in arguments if argument is not type(None)), value)
    if origin is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(arguments[0], item) for item in values)
    if origin in (Mapping, dict):
        return _convert_mapping(arguments[1], value)
    if annotation is Any:
        return _json_text(value) if isinstance(value, str) else value
    shape = value_shape(annotation)
    if origin is Literal:
        return _choice(shape, value)
    return _scalar(annotation, shape, value)


def _convert_mapping(item: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = _mapping_of_text(value, is_json_only=item is Any)
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {expected(value_shape(Mapping[str, item]))}, not {_shown(value)}")
    if item is Any:
        return {str(key): entry for key, entry in value.items()}
    return {str(key).strip().replace("-", "_"): _convert(item, entry) for key, entry in value.items()}


def _mapping_of_text(text: str, is_json_only: bool) -> Any:
    """Read a JSON object, or ``name=value,name=value``."""
    if is_json_only or text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"expected a JSON object: {error}") from error
    entries = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, separator, entry = part.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"expected name=value, not {part!r}")
        entries[key.strip()] = entry.strip()
    return entries


def _json_text(text: str) -> Any:
    """Read a dotted entry of a JSON mapping: JSON if it is, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _choice(shape: ValueShape, value: Any) -> str:
    text = str(value).strip().lower() if isinstance(value, str) else value
    if text not in shape.choices:
        from ..registry import closest

        close = closest(str(value), shape.choices)
        hint = f" (did you mean {close!r}?)" if close else ""
        raise ValueError(f"expected {expected(shape)}, not {_shown(value)}{hint}")
    return str(text)


def _scalar(annotation: Any, shape: ValueShape, value: Any) -> Any:
    try:
        if annotation is bool:
            return _bool(value)
        if annotation in (str, Path):
            return annotation(_text(value))
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if annotation is int:
            return _int(value)
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
        return number
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"expected {expected(shape)}, not {_shown(value)}") from None


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "1", "yes", "on"}:
        return True
    if isinstance(value, str) and value.strip().lower() in {"false", "0", "no", "off", ""}:
        return False
    raise ValueError


def _int(value: str | int | float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    """Numbers are good texts (``prompt: 42``); lists and mappings are not."""
    if isinstance(value, bool | list | dict) or value is None:
        raise ValueError
    return str(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def to_plain(value: Any) -> Any:
    """Return a setting's value as JSON values."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value
