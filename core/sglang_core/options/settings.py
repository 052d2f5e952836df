"""The final settings of a command: every value with its origin, read-only."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import attrs
from attrs import field, frozen

from ..errors import ConfigError
from .convert import convert, expected, json_of_text, to_plain
from .fields import OptionField
from .groups import OptionGroup
from .ranges import allowed_range

#: What a problem begins with that says what would be right.
_EXPECTATION = re.compile(r"expected (.+?)(?:, not .*)?$", re.DOTALL)
T = TypeVar("T")
OriginKind = Literal["flag", "file", "environment", "python", "receipt", "default"]


@frozen(kw_only=True)
class Origin:
    """Where a value came from; ``label`` is how messages call the place."""

    kind: OriginKind
    label: str


@frozen(kw_only=True)
class Given:
    """A value as somebody wrote it, not yet converted. ``entry`` is set for one entry of a mapping."""

    field: OptionField
    value: Any
    origin: Origin
    entry: str | None = None


DEFAULT_ORIGIN = Origin(kind="default", label="default")


@frozen(kw_only=True)
class Settings:
    """Settings by group class: ``settings.of(ExecutionOptions).device``."""

    values: Mapping[type[Any], Any]
    origins: Mapping[str, Origin] = field(factory=dict)
    groups: tuple[OptionGroup, ...] = field(default=(), repr=False)

    def of(self, group: type[T]) -> T:
        """Return the settings of one group; its defaults if the command does not take the group."""
        found = self.values.get(group)
        return found if found is not None else group()

    def is_given(self, name: str) -> bool:
        """Say whether somebody set ``name`` (flag, file, variable or Python), even to its default."""
        return name in self.origins

    def is_set(self, name: str) -> bool:
        """Say whether the setting called ``name`` exists here and is true."""
        return any(field.name == name and bool(value) for _, field, value in self.fields())

    def origin(self, name: str) -> Origin:
        """Return where the value of ``name`` came from."""
        return self.origins.get(name, DEFAULT_ORIGIN)

    def fields(self) -> Iterator[tuple[OptionGroup, OptionField, Any]]:
        """Yield every setting with its group and value."""
        for group in self.groups:
            values = self.of(group.settings)
            for option_field in group.fields:
                yield group, option_field, getattr(values, option_field.name)

    def replace(self, **changes: Any) -> "Settings":
        """Return settings with some values changed by name, as if given from Python.

        :raises ConfigError: for a name that is no setting here, or a value that its setting does not take.
        """
        return self.replace_from({name: Origin(kind="python", label=f"argument {name!r}") for name in changes}, changes)

    def replace_from(self, origins: Mapping[str, Origin], changes: Mapping[str, Any]) -> "Settings":
        """Return settings with some values changed by name; ``origins`` says where each comes from.

        :raises ConfigError: for a name that is no setting here, or a value that its setting does not take.
        """
        names = changes.keys()
        touched = [group for group in self.groups if not names.isdisjoint(group.by_name)]
        changed = {}
        for name, value in changes.items():
            option_field = next((group.by_name[name] for group in touched if name in group.by_name), None)
            if option_field is None:
                raise ConfigError(f"{origins[name].label}: unknown setting {name!r}", "see --print-config")
            changed[name] = _converted(Given(field=option_field, value=value, origin=origins[name]), value)
        all_origins = {**self.origins, **origins}
        built = {}
        for group in touched:  # the others are right already
            before = self.of(group.settings)
            values = {each.name: getattr(before, each.name) for each in group.fields} | changed
            built[group.settings] = _build(group, values, all_origins)
        return attrs.evolve(self, values={**self.values, **built}, origins=all_origins)

    def to_json(self) -> dict[str, Any]:
        """Return every given, non-secret setting as JSON values."""
        return {
            option_field.name: to_plain(value)
            for _, option_field, value in self.fields()
            if self.is_given(option_field.name) and not option_field.details.is_secret
        }


def merge(groups: Sequence[OptionGroup], layers: Sequence[Iterable[Given]]) -> Settings:
    """Merge what was given, from the strongest layer to the weakest, into settings.

    In a mapping single entries merge across layers and win over the whole mapping of the same layer; every other
    setting takes the strongest value. ``None`` (``key: null`` in a file) counts as not given.

    :raises ConfigError: for the first value that its setting does not take; it names the value's origin.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    fields = {f.name: f for group in groups for f in group.fields}
    for layer in reversed(list(layers)):
        ordered = sorted(layer, key=lambda given: given.entry is not None)
        for given in ordered:
            if given.field.name in fields and given.value is not None:
                values[given.field.name] = _merged(given, values.get(given.field.name))
                origins[given.field.name] = given.origin
    built = {group.settings: _build(group, values, origins) for group in groups}
    return Settings(values=built, origins=origins, groups=tuple(groups))


def _merged(given: Given, before: Any) -> Any:
    if given.entry is None:
        return _converted(given, given.value)
    is_json_text = given.field.shape.kind == "json" and given.origin.kind == "flag"
    value = json_of_text(given.value) if is_json_text else given.value
    return {**(before or {}), **_converted(given, {given.entry: value})}


def _converted(given: Given, value: Any) -> Any:
    if value is None:
        return given.field.default
    try:
        return convert(given.field, value)
    except ValueError as error:
        if given.field.details.is_secret:  # the message quotes the value
            raise _refusal(given.field, given.origin, "the value is not right") from None
        raise _refusal(given.field, given.origin, str(error)) from error


def _build(group: OptionGroup, values: Mapping[str, Any], origins: Mapping[str, Origin]) -> Any:
    own = {f.name: values[f.name] for f in group.fields if f.name in values}
    try:
        return group.settings(**own)
    except (ValueError, TypeError) as error:
        culprit = next((f for f in group.fields if f.name in own and _is_refused(group, f, own[f.name])), None)
        if culprit is None:
            raise ConfigError(f"{group.title}: {error}", "see --help for the settings") from error
        raise _refusal(culprit, origins.get(culprit.name, DEFAULT_ORIGIN), str(error.args[0])) from error


def _is_refused(group: OptionGroup, option_field: OptionField, value: Any) -> bool:
    try:
        group.settings(**{option_field.name: value})
    except (ValueError, TypeError):
        return True
    return False


def _refusal(option_field: OptionField, origin: Origin, problem: str) -> ConfigError:
    remedy = f"give {option_field.name} {_wanted(option_field, problem)}"
    return ConfigError(f"{origin.label}: {problem}", remedy)


def _wanted(option_field: OptionField, problem: str) -> str:
    said = _EXPECTATION.match(problem)
    if said and option_field.shape.kind == "str" and not option_field.shape.is_mapping:
        return said[1]  # of a text only its validator knows what is right
    return f"{expected(option_field.shape)}{allowed_range(option_field)}"
