"""What objects are called, and the URLs that lead to them."""

import string
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from attrs import frozen

from sglang_core import UploadItem

_FIELDS = ("name", "stem", "extension", "id", "index", "kind", "date")
#: What S3 takes.
_MAX_KEY_BYTES = 1024


@frozen(kw_only=True)
class KeyTemplate:
    """The names of objects: a prefix and a template of fields.

    :raises ValueError: for a template that names an unknown field, or gives two outputs one key.
    """

    prefix: str
    template: str

    def __attrs_post_init__(self) -> None:
        names = set(_fields_of(self.template))
        unknown = sorted(names - set(_FIELDS))
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ValueError(f"there is no field {{{unknown[0]}}} (known: {known})")
        if not names & {"name", "stem"} and not names >= {"id", "index"}:
            raise ValueError("different outputs would get one key: use {name}, {stem}, or both {id} and {index}")

    def key(self, item: UploadItem) -> str:
        """Return the key of a file.

        :raises ValueError: if it would be longer than storages take, or has an empty, ``.`` or ``..`` segment.
        """
        return self.below_prefix(self.template.format_map(_facts(item)))

    def below_prefix(self, name: str) -> str:
        """Return the key of a name below the prefix.

        :raises ValueError: as :meth:`key`.
        """
        prefix = self.prefix.strip("/")
        key = (f"{prefix}/" if prefix else "") + name.lstrip("/")
        if any(segment in ("", ".", "..") for segment in key.split("/")):
            raise ValueError(f"the key {key!r} has a segment that is empty, '.' or '..'")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
            raise ValueError(f"the key {key!r} has a control character in it")
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise ValueError(f"the key {key[:40]!r}... has more than {_MAX_KEY_BYTES} bytes")
        return key


def _fields_of(template: str) -> list[str]:
    """Return the fields of a template; what format strings can do beyond that is refused."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not name.isidentifier()):
            raise ValueError(f"{{{name}}} is no field: write it as {{name}}, without anything else in the braces")
    return [name for _, name, _, _ in parts if name is not None]


def _facts(item: UploadItem) -> Mapping[str, str]:
    stem = item.path.stem
    defaults = {"id": stem, "index": "0", "kind": item.media_type.partition("/")[0]}
    today = datetime.now(UTC).date().isoformat()
    own = {"name": item.path.name, "stem": stem, "extension": item.path.suffix.removeprefix(".")}
    return {**defaults, "date": today, **item.facts, **own}


def object_url(base: str, key: str) -> str:
    """Return the URL of an object below ``base``."""
    return f"{base.rstrip('/')}/{quote(key, safe='/~')}"
