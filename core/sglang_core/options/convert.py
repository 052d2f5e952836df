"""From what the user wrote (text, or a value of a file) to the type of the setting."""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ..registry import closest
from .fields import OptionField, ValueShape, value_shape

if TYPE_CHECKING:
    from cattrs import Converter

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "json": "JSON",
}
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


def expected(shape: ValueShape) -> str:
    """Say in words what a setting takes."""
    one = f"one of {', '.join(shape.choices)}" if shape.kind == "choice" else _EXPECTED[shape.kind]
    if shape.is_mapping:
        return "a JSON object" if shape.kind == "json" else f"entries name=value, each value {one}"
    return f"one or more values, each {one}" if shape.is_many else one


def convert(field: OptionField, value: Any) -> Any:
    """Return ``value`` in the type of the setting; texts are read, other values are checked.

    :raises ValueError: if it is not of that type; the message says what was expected.
    :raises ConfigError: if it names a file that cannot be read.
    """
    if field.details.reads_files:
        value = _with_files_read(field, value)
    return _converter().structure(value, field.annotation)


@cache
def _converter() -> "Converter":
    """Return the converter of settings: strict, except that every type can be read from text."""
    from cattrs import Converter  # 50 ms, and only where somebody set something

    converter = Converter()
    for annotation, read in _SCALARS.items():
        converter.register_structure_hook(annotation, _scalar_hook(read))
    converter.register_structure_hook_func(lambda annotation: annotation is Any, _any)
    converter.register_structure_hook_func(
        lambda annotation: _origin(annotation) is Literal,
        lambda value, annotation: _choice(value_shape(annotation), value),
    )
    converter.register_structure_hook_func(
        lambda annotation: _origin(annotation) is tuple,
        lambda value, annotation: _many(converter, value, annotation),
    )
    converter.register_structure_hook_func(
        lambda annotation: _origin(annotation) in (Mapping, dict),
        lambda value, annotation: _mapping(converter, value, annotation),
    )
    return converter


def _origin(annotation: Any) -> Any:
    return get_origin(annotation)


def _any(value: Any, annotation: Any) -> Any:
    return json_of_text(value) if isinstance(value, str) else value


def _many(converter: "Converter", value: Any, annotation: Any) -> tuple[Any, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(converter.structure(item, get_args(annotation)[0]) for item in values)


def _mapping(converter: "Converter", value: Any, annotation: Any) -> dict[str, Any]:
    """Read a mapping, a text of entries, or several such texts (as several words of one flag)."""
    item = get_args(annotation)[1]
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        value = {key: entry for text in texts for key, entry in _entries_of_text(text, item is Any).items()}
    if not isinstance(value, Mapping):
        raise _mismatch(value_shape(annotation), value)
    if item is Any:  # JSON as it is: its texts stay texts
        return {str(key): entry for key, entry in value.items()}
    return {str(key).strip().replace("-", "_"): converter.structure(entry, item) for key, entry in value.items()}


def _with_files_read(field: OptionField, value: Any) -> Any:
    """Return the mapping that texts stand for: each a JSON object, a file, or ``name=value,name=value``."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return value
    merged: dict[str, Any] = {}
    for text in texts:
        if text.lower().endswith((".json", ".yaml", ".yml")) and "=" not in text:
            from .sources import read_config_file  # it imports this module

            merged.update({entry.key: entry.value for entry in read_config_file(Path(text), field.flag)})
        elif text.lstrip().startswith("{"):
            merged.update(_entries_of_text(text, is_json_only=True))
        else:
            merged.update({key: json_of_text(e) for key, e in _entries_of_text(text, is_json_only=False).items()})
    return merged


def _entries_of_text(text: str, is_json_only: bool) -> Mapping[str, Any]:
    """Read a JSON object, or ``name=value,name=value``."""
    if is_json_only or text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected a JSON object: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, not {_shown(value)}")
        return value
    entries = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, separator, entry = part.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"expected name=value, not {part!r}")
        entries[key.strip()] = entry.strip()
    return entries


def json_of_text(text: str) -> Any:
    """Read a value that is JSON if it can be, and else the text itself (``--diffusers-kwargs.name value``)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _choice(shape: ValueShape, value: Any) -> str:
    text = value.strip().lower() if isinstance(value, str) else None
    if text in shape.choices:
        return text
    error = _mismatch(shape, value)
    close = closest(str(value), shape.choices)
    raise ValueError(f"{error} (did you mean {close!r}?)") if close else error


def _scalar_hook(read: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, annotation: Any) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError):
            raise _mismatch(value_shape(annotation), value) from None

    return structure


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _int(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(_number(value))


def _float(value: Any) -> float:
    number = float(_number(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def _number(value: Any) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return value


def _text(value: Any) -> str:
    """Only text is text: of ``revision: 0012`` or ``1.10`` a file's reader would keep another spelling."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value))


_SCALARS: Mapping[Any, Callable[[Any], Any]] = {bool: _bool, int: _int, float: _float, str: _text, Path: _path}


def _mismatch(shape: ValueShape, value: Any) -> ValueError:
    quotes = ": put it in quotes" if shape.kind in {"str", "path"} and isinstance(value, int | float) else ""
    return ValueError(f"expected {expected(shape)}, not {_shown(value)}{quotes}")


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)
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
