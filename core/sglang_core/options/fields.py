"""One attrs field is one setting: its flag, key, variable and help are written here and nowhere else."""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import frozen

ScalarKind = Literal["bool", "int", "float", "str", "path", "choice", "json"]
_METADATA_KEY = "sglang_option"


@frozen(kw_only=True)
class OptionDetails:
    """What :func:`option` was told besides type, default and validator."""

    help: str
    aliases: tuple[str, ...] = ()
    env: str | None = None
    metavar: str | None = None
    negative_flag: bool = False
    pattern: str | None = None
    is_secret: bool = False
    reads_files: bool = False


def option(
    *,
    help: str,  # noqa: A002 - the word that click and argparse use
    default: Any = attrs.NOTHING,
    factory: Any = None,
    aliases: Sequence[str] = (),
    env: str | None = None,
    metavar: str | None = None,
    validator: Any = None,
    negative_flag: bool = False,
    pattern: str | None = None,
    is_secret: bool = False,
    reads_files: bool = False,
) -> Any:
    """Declare a setting as a field of an attrs class (``@frozen(kw_only=True)``).

    The field's annotation decides how values are read: ``bool``, ``int``, ``float``, ``str``, ``Path``, a ``Literal``
    of strings, any of these ``| None``, ``tuple[X, ...]`` for several values, ``Mapping[str, X]`` for dotted flags,
    ``Mapping[str, Any]`` for a JSON object.

    :param help: one sentence for ``--help`` and the docs.
    :param default: the value when nobody sets it; every setting needs one (or ``factory``).
    :param aliases: further names, good as flags and as keys.
    :param env: the environment variable that sets it, if there is one.
    :param metavar: what stands for the value in ``--help``.
    :param negative_flag: also offer ``--no-<name>`` for a boolean.
    :param pattern: for a mapping, a family of flags and keys such as ``"{key}_path"`` that set single entries.
    :param is_secret: never printed.
    :param reads_files: for ``Mapping[str, Any]``, take the path of a JSON or YAML file or ``name=value,...`` as well.
    """
    details = OptionDetails(
        help=help,
        aliases=tuple(aliases),
        env=env,
        metavar=metavar,
        negative_flag=negative_flag,
        pattern=pattern,
        is_secret=is_secret,
        reads_files=reads_files,
    )
    metadata = {_METADATA_KEY: details}
    if factory is not None:
        return attrs.field(factory=factory, validator=validator, metadata=metadata, repr=not is_secret)
    return attrs.field(default=default, validator=validator, metadata=metadata, repr=not is_secret)


@frozen(kw_only=True)
class ValueShape:
    """How a setting's values are written."""

    kind: ScalarKind
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    is_many: bool = False
    is_mapping: bool = False


@frozen(kw_only=True)
class OptionField:
    """One setting of a group, as the faces need it."""

    name: str
    group: type[Any]
    annotation: Any
    shape: ValueShape
    default: Any
    details: OptionDetails

    @property
    def flag(self) -> str:
        """Return the main flag, ``--like-this``."""
        return flag_of(self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Return all flags that set it, the main one first."""
        return tuple(flag_of(name) for name in (self.name, *self.details.aliases))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return all configuration keys that set it, the main one first."""
        return (self.name, *self.details.aliases)

    def match_pattern(self, key: str) -> str | None:
        """Return the mapping entry that ``key`` (underscored) sets through the field's pattern, if it does."""
        if self.details.pattern is None:
            return None
        prefix, suffix = self.details.pattern.split("{key}")
        entry = key.removeprefix(prefix).removesuffix(suffix)
        is_match = key.startswith(prefix) and key.endswith(suffix) and bool(entry) and len(key) > len(prefix + suffix)
        return entry if is_match else None


def flag_of(name: str) -> str:
    """Return the flag of a setting's name."""
    return "--" + name.replace("_", "-")


def key_of(flag: str) -> str:
    """Return the setting's name for a flag, however it is spelled."""
    return flag.removeprefix("--").replace("-", "_")


def option_fields(group: type[Any]) -> tuple[OptionField, ...]:
    """Return the settings of an attrs class, in the order they are written.

    :raises TypeError: if a field is not made by :func:`option`, has no default, a type that is not supported, or an
        alias or pattern that cannot be a key.
    """
    annotations = typing.get_type_hints(group)
    return tuple(_option_field(group, attribute, annotations[attribute.name]) for attribute in attrs.fields(group))


def _option_field(group: type[Any], attribute: "attrs.Attribute[Any]", annotation: Any) -> OptionField:
    details = attribute.metadata.get(_METADATA_KEY)
    if details is None:
        raise TypeError(f"{group.__name__}.{attribute.name} is not declared with option()")
    if attribute.default is attrs.NOTHING:
        raise TypeError(f"{group.__name__}.{attribute.name} has no default")
    spellings = [*details.aliases, *([details.pattern.replace("{key}", "x", 1)] if details.pattern else [])]
    for spelling in spellings:
        if not spelling.isidentifier():
            raise TypeError(f"{group.__name__}.{attribute.name}: {spelling!r} is no key; write it_like_this")
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
        default = default.factory()
    return OptionField(
        name=attribute.name,
        group=group,
        annotation=annotation,
        shape=value_shape(annotation),
        default=default,
        details=details,
    )


_SCALARS: dict[Any, ScalarKind] = {bool: "bool", int: "int", float: "float", str: "str", Path: "path"}


def value_shape(annotation: Any) -> ValueShape:
    """Return how values of an annotation are written.

    :raises TypeError: if the annotation is not one that settings support.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1:
            return attrs.evolve(value_shape(inner[0]), is_optional=True)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return attrs.evolve(value_shape(arguments[0]), is_many=True)
    if origin in (Mapping, dict):
        if arguments[1] is Any:
            return ValueShape(kind="json", is_mapping=True)
        return attrs.evolve(value_shape(arguments[1]), is_mapping=True)
    if origin is Literal:
        return ValueShape(kind="choice", choices=tuple(str(choice) for choice in arguments))
    if annotation in _SCALARS:
        return ValueShape(kind=_SCALARS[annotation])
    if annotation is Any:
        return ValueShape(kind="json")
    raise TypeError(f"settings cannot have the type {annotation!r}")
