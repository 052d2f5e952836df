"""One declaration of a request's fields; parsing, messages and the OpenAPI document are made of it.

A request is an attrs class whose attributes are made by :func:`api_field`. Its annotation says what a value is, the
details say what it means and which values are taken.
"""

import math
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import attrs
from attrs import evolve, frozen

from sglang_core import ApiError, closest

T = TypeVar("T", bound="RequestFields")
Kind = Literal["string", "integer", "number", "boolean", "choice", "object", "image"]
_DETAILS = "api_field"
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}(\.0+)?")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?")
_LONGEST_SHOWN = 60


@frozen(kw_only=True)
class FieldDetails:
    """What :func:`api_field` was told."""

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    max_length: int | None = None
    max_items: int = 10
    pattern: str | None = None
    #: What a value that matches ``pattern`` is called in messages.
    expected: str | None = None
    #: Numbers may be written as text in JSON too.
    takes_text: bool = False
    example: Any = None


def api_field(doc: str, *, default: Any = attrs.NOTHING, **details: Any) -> Any:
    """Declare a field of a request; without a default it is required. ``details`` are those of :class:`FieldDetails`.

    The annotation is ``str``, ``int``, ``float``, ``bool``, a ``Literal`` of texts, ``Mapping[str, Any]``,
    ``tuple[X, ...]`` for one value or a list of them, or one of these ``| None``. ``ImageInput`` is a
    file of a form, a URL, or an object with ``image_url``.
    """
    return attrs.field(
        default=default, validator=_validate, metadata={_DETAILS: FieldDetails(doc=doc, **details)}, kw_only=True
    )


@frozen(kw_only=True)
class ImageInput:
    """An image of a request: the content of an uploaded file, or a URL that is not fetched yet."""

    content: bytes | None = None
    url: str | None = None
    #: The field that it came in, for what is wrong with it.
    field: str | None = None


class RequestFields:
    """Base of every request: beside its fields, what is known and not taken."""

    #: Fields that OpenAI's API or another server has and this one does not act on: the reason.
    unsupported: ClassVar[Mapping[str, str]] = {}
    #: Of these, the values that ask for nothing, so that leaving them unheard changes nothing.
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}


@frozen(kw_only=True)
class ApiField:
    """One declared field as parsing and the document need it."""

    name: str
    kind: Kind
    choices: tuple[str, ...]
    is_many: bool
    is_required: bool
    default: Any
    details: FieldDetails


def fields_of(request: type[RequestFields]) -> Mapping[str, ApiField]:
    """Return the declared fields of a request by name, in the order they are written."""
    if request not in _known:
        _known[request] = _declared(request)
    return _known[request]


_known: dict[type[RequestFields], Mapping[str, ApiField]] = {}


def _declared(request: type[RequestFields]) -> Mapping[str, ApiField]:
    annotations = typing.get_type_hints(request)
    found: dict[str, ApiField] = {}
    for attribute in attrs.fields(request):  # type: ignore[arg-type]  # every request is an attrs class
        annotation, is_many = _inner(annotations[attribute.name])
        kind, choices = _kind(annotation)
        found[attribute.name] = ApiField(
            name=attribute.name,
            kind=kind,
            choices=choices,
            is_many=is_many,
            is_required=attribute.default is attrs.NOTHING,
            default=None if attribute.default is attrs.NOTHING else attribute.default,
            details=attribute.metadata[_DETAILS],
        )
    return found


def _inner(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without ``| None`` and ``tuple[..., ...]``, and whether the latter was there."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(argument for argument in get_args(annotation) if argument is not type(None))
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    return annotation, False


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(annotation) is Literal:
        return "choice", tuple(get_args(annotation))
    if get_origin(annotation) is Mapping:
        return "object", ()
    kinds: dict[Any, Kind] = {str: "string", int: "integer", float: "number", bool: "boolean", ImageInput: "image"}
    return kinds[annotation], ()


def read_fields(request: type[T], values: Mapping[str, Any], *, is_form: bool) -> T:
    """Return the request that the values of a body describe.

    :param is_form: values are texts of a form, to be read as what the field is.
    :raises ApiError: 400, for the first field that is unknown, not supported, missing, or has a wrong value.
    """
    known = fields_of(request)
    for name in values:
        if name not in known:
            _refuse_unknown(request, name, values[name], known)
    taken = {
        name: _read(field, values[name], is_form=is_form)
        for name, field in known.items()
        if name in values and not _is_unset(field, values[name], is_form)
    }
    for name, field in known.items():
        if field.is_required and name not in taken:
            raise ApiError(
                400, f"the field '{name}' is missing", param=name, code="missing_required_parameter"
            )  # OpenAI's code
    return request(**taken)


def _is_unset(field: ApiField, value: Any, is_form: bool) -> bool:
    return value is None or (is_form and value == "" and field.kind != "string")


def _refuse_unknown(request: type[RequestFields], name: str, value: Any, known: Collection[str]) -> None:
    reason = request.unsupported.get(name)
    if reason is not None:
        plain = _plain_of_text(value) if isinstance(value, str) else value
        if value is None or any(type(plain) is type(h) and plain == h for h in request.harmless.get(name, ())):
            return
        raise ApiError(
            400,
            f"the field '{name}' ({_shown(value)}) is not supported: {reason}",
            param=name,
            code="unsupported_parameter",
        )
    close = closest(name, known)
    remedy = f"did you mean '{close}'?" if close else f"known are {', '.join(sorted(known))}"
    raise ApiError(400, f"unknown field '{_cut(name)}': {remedy}", param=_cut(name), code="unknown_parameter")


def _plain_of_text(text: str) -> Any:
    word = text.strip().lower()
    if word in {"true", "false"}:
        return word == "true"
    return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else text


def _read(field: ApiField, value: Any, *, is_form: bool) -> Any:
    if field.is_many:
        many = value if isinstance(value, list) else [value]
        return tuple(_read_one(field, item, is_form) for item in many)
    return _read_one(field, value, is_form)


def _read_one(field: ApiField, value: Any, is_form: bool) -> Any:
    is_text = isinstance(value, str) and (is_form or field.details.takes_text)
    if field.kind in {"integer", "number"}:
        number = _number_of_text(field, value) if is_text else value
        return _number(field, number, value)
    if field.kind == "boolean":
        word = value.strip().lower() if is_text else ""
        value = word in _TRUE if word in _TRUE | _FALSE else value
        is_right = isinstance(value, bool)
    elif field.kind == "object":
        is_right = isinstance(value, Mapping)
    elif field.kind == "image":
        return _image(field, value)
    else:
        is_right = isinstance(value, str)
    if not is_right:
        raise _wrong_type(field, value)
    return value


def _number(field: ApiField, number: Any, value: Any) -> int | float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong_type(field, value)
    if isinstance(number, float) and not math.isfinite(number):
        raise _wrong_type(field, value)
    if field.kind == "integer" and number != int(number):
        raise _wrong_type(field, value)
    return int(number) if field.kind == "integer" else number


def _image(field: ApiField, value: Any) -> ImageInput:
    if isinstance(value, ImageInput):
        return evolve(value, field=field.name)
    if isinstance(value, Mapping):
        if "file_id" in value:
            problem = f"the field '{field.name}' names a file_id, and this server keeps no files: give image_url"
            raise ApiError(400, problem, param=f"{field.name}.file_id", code="unsupported_parameter")
        if set(value) != {"image_url"}:
            raise _wrong_type(field, value)
        value = value["image_url"]
        if isinstance(value, Mapping) and set(value) == {"url"}:  # as in OpenAI's chat messages
            value = value["url"]
    if not isinstance(value, str):
        raise _wrong_type(field, value)
    if not re.match(r"(https?://|data:)", value, re.IGNORECASE):
        expected = "an http(s) or data: URL; a client does not name files of the server"
        raise _wrong_value(field, value, expected)
    return ImageInput(url=value, field=field.name)


def _number_of_text(field: ApiField, text: str) -> int | float:
    stripped = text.strip()
    if _INTEGER.fullmatch(stripped):
        return int(stripped.partition(".")[0])
    if field.kind == "number" and _NUMBER.fullmatch(stripped):
        return float(stripped)
    raise _wrong_type(field, text)


def _validate(request: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    """Refuse values outside of what the details allow; the type is right already."""
    if value is None:
        return
    field = fields_of(type(request))[attribute.name]
    if isinstance(value, tuple) and len(value) > field.details.max_items:
        problem = f"the field '{field.name}' has {len(value)} values, it takes at most {field.details.max_items}"
        raise ApiError(400, problem, param=field.name, code="invalid_value")
    for item in value if isinstance(value, tuple) else (value,):
        _validate_one(field, item)


def _validate_one(field: ApiField, value: Any) -> None:
    details = field.details
    if field.kind == "choice" and value not in field.choices:
        close = closest(str(value), field.choices)
        raise _wrong_value(
            field, value, f"one of {', '.join(field.choices)}" + (f" (did you mean '{close}'?)" if close else "")
        )
    if details.minimum is not None and value < details.minimum:
        raise _wrong_value(field, value, f"at least {details.minimum:.15g}")
    if details.exclusive_minimum is not None and value <= details.exclusive_minimum:
        raise _wrong_value(field, value, f"more than {details.exclusive_minimum:.15g}")
    if details.maximum is not None and value > details.maximum:
        raise _wrong_value(field, value, f"at most {details.maximum:,.15g}")
    if details.max_length is not None and len(value) > details.max_length:
        problem = f"the field '{field.name}' has {len(value):,} characters, it takes at most {details.max_length:,}"
        raise ApiError(400, problem, param=field.name, code="invalid_value")
    if details.pattern is not None and not re.fullmatch(details.pattern, value):
        raise _wrong_value(field, value, details.expected or f"text that matches {details.pattern}")


_NOUNS: Mapping[Kind, str] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a JSON object",
    "image": "an image: a file, a URL, or an object with image_url",
}


def _wrong_type(field: ApiField, value: Any) -> ApiError:
    noun = f"one of {', '.join(field.choices)}" if field.kind == "choice" else _NOUNS[field.kind]
    return ApiError(
        400, f"the field '{field.name}' takes {noun}, not {_shown(value)}", param=field.name, code="invalid_type"
    )


def _wrong_value(field: ApiField, value: Any, expected: str) -> ApiError:
    return ApiError(
        400,
        f"the field '{field.name}' is {_shown(value)}, it takes {expected}",
        param=field.name,
        code="invalid_value",
    )


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if isinstance(value, str | int | float):
        return f"'{_cut(value)}'" if isinstance(value, str) else _cut(str(value))
    return "a file"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
