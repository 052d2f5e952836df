"""All groups of settings, and which flag, key or variable leads to which field."""

from collections.abc import Iterator, Sequence

from attrs import frozen

from ..errors import PluginError
from .fields import OptionField, flag_of
from .groups import OptionGroup


@frozen(kw_only=True)
class Target:
    """What a key leads to: a field, or one entry of a mapping field."""

    field: OptionField
    group: OptionGroup
    entry: str | None = None


class OptionNamespace:
    """The groups of all plugins. A flag, key or variable belongs to one field."""

    def __init__(self) -> None:
        self._groups: dict[str, OptionGroup] = {}
        self._owners: dict[str, str] = {}
        self._keys: dict[str, Target] = {}
        self._variables: dict[str, OptionField] = {}

    def add(self, group: OptionGroup, owner: str) -> None:
        """Add a group for the plugin ``owner``.

        :raises PluginError: if its name, a flag, key or variable is taken; both plugins are named.
        """
        if group.name in self._groups:
            raise self._conflict(f"the option group {group.name!r}", owner, self._owners[group.name])
        for field in group.fields:
            for key in field.keys:
                if key in self._keys:
                    other = self._owners[self._keys[key].group.name]
                    raise self._conflict(f"{flag_of(key)} ({key})", owner, other)
            variable = field.details.env
            if variable is not None and variable in self._variables:
                other = self._owners[self._keys[self._variables[variable].name].group.name]
                raise self._conflict(f"the variable {variable}", owner, other)
        self._groups[group.name] = group
        self._owners[group.name] = owner
        for field in group.fields:
            self._keys.update({key: Target(field=field, group=group) for key in field.keys})
            if field.details.env is not None:
                self._variables[field.details.env] = field

    def remove(self, owner: str) -> None:
        """Take back the groups that ``owner`` added."""
        for name in [name for name, by in self._owners.items() if by == owner]:
            del self._groups[name]
            del self._owners[name]
            self._keys = {key: target for key, target in self._keys.items() if target.group.name != name}
            self._variables = {
                variable: field for variable, field in self._variables.items() if field.name in self._keys
            }

    @staticmethod
    def _conflict(what: str, owner: str, other: str) -> PluginError:
        name = owner.split(" ")[0]
        return PluginError(f"{what} of plugin {owner} is already taken by plugin {other}", f"--disable-plugin {name}")

    def owner(self, group_name: str) -> str:
        """Return the plugin that contributed a group."""
        return self._owners[group_name]

    def for_command(self, command: str) -> tuple[OptionGroup, ...]:
        """Return the groups a command uses."""
        return tuple(group for group in self if command in group.commands)

    def ignored_by(self, command: str) -> tuple[OptionGroup, ...]:
        """Return the groups a command accepts without using them."""
        return tuple(group for group in self if command in group.ignored_by and command not in group.commands)

    def find(self, key: str, groups: Sequence[OptionGroup]) -> Target | None:
        """Return what ``key`` (underscored, perhaps dotted) leads to among ``groups``."""
        head, dot, entry = key.partition(".")
        target = self._keys.get(head)
        if target is not None and target.group in groups:
            if not dot:
                return target
            if target.field.shape.is_mapping and entry:
                return Target(field=target.field, group=target.group, entry=entry)
            return None
        for group in groups:
            for field in group.fields:
                matched = field.match_pattern(key)
                if matched is not None:
                    return Target(field=field, group=group, entry=matched)
        return None

    def known_keys(self, groups: Sequence[OptionGroup]) -> tuple[str, ...]:
        """Return every key of ``groups``, aliases included."""
        return tuple(key for group in groups for field in group.fields for key in field.keys)

    def __iter__(self) -> Iterator[OptionGroup]:
        return iter(self._groups.values())
