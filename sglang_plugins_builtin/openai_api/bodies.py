"""From the body of a request, JSON or a multipart form, to values by field name."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sglang_core import ApiError

from .fields import ApiField, ImageInput, RequestFields, fields_of, read_fields

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T", bound=RequestFields)

#: Objects whose entries are fields of the request, as other servers and clients wrap extensions.
CONTAINERS = ("extra_body", "extra_args", "extra_params", "extra_json")
_MAX_FILES = 20
_MAX_FORM_FIELDS = 500
_MAX_FORM_VALUE_BYTES = 48 * 2**20
_MAX_DEPTH = 6
_FORM_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SURROGATE = re.compile("[\ud800-\udfff]")


async def read_request(request: "Request", kind: type[T], *, takes_form: bool = False) -> T:
    """Return the request that a body describes.

    :param takes_form: a multipart form is taken too.
    :raises ApiError: 400 for a body that cannot be read or a field that is wrong; 415 for another kind of body.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data" and takes_form:
        return read_fields(kind, _opened(await _form(request), kind, is_form=True), is_form=True)
    if media_type in {"", "application/json"} or media_type.endswith("+json"):
        return read_fields(kind, _opened(_json(await request.body()), kind, is_form=False), is_form=False)
    taken = "application/json or multipart/form-data" if takes_form else "application/json"
    message = f"a body of the type {media_type[:100]!r} is not read here: send {taken}"
    raise ApiError(415, message, code="unsupported_media_type")


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(400, f"the body is not JSON: {reason}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, 'the body is not a JSON object: write {"prompt": "..."}', code="invalid_json")
    if _SURROGATE.search(body.decode("utf-8", "ignore")) or b"\\u" in body:
        _refuse_surrogates(value)
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice[:60]!r} is there twice")
    return values


def _refuse_surrogates(value: Any, depth: int = 0) -> None:
    """Refuse halves of surrogate pairs: they are no text, and no file or database can hold them."""
    if isinstance(value, str) and _SURROGATE.search(value):
        raise ApiError(400, "a text of the body is not Unicode: it has half a surrogate pair", code="invalid_json")
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_surrogates(name, depth + 1)
            _refuse_surrogates(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item, depth + 1)


async def _form(request: "Request") -> dict[str, Any]:
    """Return the values of a form; ``name[]`` and repeated names make lists, ``name[key]`` objects."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    values: dict[str, Any] = {}
    try:
        form = await request.form(
            max_files=_MAX_FILES, max_fields=_MAX_FORM_FIELDS, max_part_size=_MAX_FORM_VALUE_BYTES
        )
    except HTTPException as error:
        raise ApiError(400, f"the form can not be read: {error.detail}", code="invalid_form") from error
    except (ValueError, UnicodeError, KeyError) as error:
        raise ApiError(400, f"the form can not be read: {str(error)[:200]}", code="invalid_form") from error
    try:
        for key, value in form.multi_items():
            content = ImageInput(content=await value.read()) if isinstance(value, UploadFile) else value
            _put(values, key, content)
    finally:
        await form.close()
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    match = _FORM_KEY.fullmatch(key)
    path = re.findall(r"\[([^\[\]]*)\]", match[2]) if match else []
    if match is None or len(path) > _MAX_DEPTH or any(part == "" for part in path[:-1]):
        raise ApiError(400, f"the form has a field {key[:60]!r}, which can not be read", code="invalid_form")
    place: dict[str, Any] = values
    names = [match[1], *path]
    is_list = names[-1] == ""
    if is_list:
        names.pop()
    for name in names[:-1]:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ApiError(
                400, f"the form has '{name}' as a value and as an object", param=names[0], code="invalid_form"
            )
        place = inner
    before = place.get(names[-1])
    if before is None and names[-1] not in place:
        place[names[-1]] = [value] if is_list else value
    elif isinstance(before, list):
        before.append(value)
    elif isinstance(before, dict):
        raise ApiError(
            400, f"the form has '{names[0]}' as a value and as an object", param=names[0], code="invalid_form"
        )
    else:
        place[names[-1]] = [before, value]


def _opened(values: dict[str, Any], kind: type[RequestFields], *, is_form: bool) -> dict[str, Any]:
    """Return the values with those inside of the containers beside them, and the objects of a form read."""
    known = fields_of(kind)
    if is_form:  # name[key]=text: only what the form spells out is text, the objects in texts of JSON are typed
        values = {
            name: _leaves(value)
            if isinstance(value, dict) and (name in CONTAINERS or _is_object(known, name))
            else value
            for name, value in values.items()
        }
    for name in CONTAINERS:
        if values.get(name) is None:
            values.pop(name, None)
            continue
        inner = _object(name, values.pop(name))
        for key, value in inner.items():
            if key in values and values[key] != value:
                problem = f"the field '{key[:60]}' is given twice, also in '{name}', with another value"
                raise ApiError(400, problem, param=key[:60], code="invalid_value")
            values[key] = _as_form_text(value) if is_form else value
    if is_form:
        for name in [name for name in values if _is_object(known, name)]:
            if values[name] in (None, ""):
                del values[name]
            else:
                values[name] = _object(name, values[name])
    for name in values:
        if isinstance(values[name], list) and name in known and not known[name].is_many:
            problem = f"the field '{name}' takes one value, not a list"
            raise ApiError(400, problem, param=name, code="invalid_type")
    return values


def _as_form_text(value: Any) -> Any:
    """Return a JSON value as a form would have it; lists and objects stay."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _object(name: str, value: Any) -> dict[str, Any]:
    """Return an object that is one, or that a text of JSON describes."""
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_refuse_constant, object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError) as error:
            problem = f"the field '{name}' is not a JSON object: {str(error)[:200]}"
            raise ApiError(400, problem, param=name, code="invalid_type") from error
        _refuse_surrogates(value)
    if not isinstance(value, dict):
        raise ApiError(400, f"the field '{name}' takes a JSON object", param=name, code="invalid_type")
    return value


def _is_object(known: Mapping[str, ApiField], name: str) -> bool:
    return name in known and known[name].kind == "object"


def _leaves(value: Any) -> Any:
    """Read the texts that a form spells out inside of an object: each as JSON if it is JSON."""
    if isinstance(value, dict):
        return {key: _leaves(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_leaves(item) for item in value]
    try:
        return json.loads(value, parse_constant=_refuse_constant) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
