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


#: Names that the command line itself reads, before and beside the settings.
_RESERVED = frozenset({"config", "print_config", "help", "disable_plugin", "version"})


class OptionNamespace:
    """The groups of all plugins. A flag, key, variable or pattern belongs to one field."""

    def __init__(self) -> None:
        self._groups: dict[str, OptionGroup] = {}
        self._owners: dict[str, str] = {}
        self._keys: dict[str, Target] = {}
        #: What is taken, in the words of messages, and the group that has it.
        self._claims: dict[str, str] = {}

    def add(self, group: OptionGroup, owner: str) -> None:
        """Add a group for the plugin ``owner``.

        :raises PluginError: if its name, a flag, key, variable or pattern is taken; both plugins are named.
        """
        claims: dict[str, str] = {}
        for claim in (f"the option group {group.name!r}", *(c for field in group.fields for c in _claims(field))):
            if claim in claims or claim in self._claims:
                other = owner if claim in claims else self._owners[self._claims[claim]]
                raise self._conflict(claim, owner, other)
            claims[claim] = group.name
        for key in (key for field in group.fields for key in field.keys if key in _RESERVED):
            raise PluginError(
                f"{flag_of(key)} ({key}) of plugin {owner} is taken by the command line itself", "rename the setting"
            )
        self._claims.update(claims)
        self._groups[group.name] = group
        self._owners[group.name] = owner
        for field in group.fields:
            self._keys.update({key: Target(field=field, group=group) for key in field.keys})

    def remove(self, owner: str) -> None:
        """Take back the groups that ``owner`` added."""
        for name in [name for name, by in self._owners.items() if by == owner]:
            del self._groups[name]
            del self._owners[name]
            self._keys = {key: target for key, target in self._keys.items() if target.group.name != name}
            self._claims = {claim: group for claim, group in self._claims.items() if group != name}

    @staticmethod
    def _conflict(what: str, owner: str, other: str) -> PluginError:
        name = owner.split(" ")[0]
        return PluginError(
            f"{what} of plugin {owner} is already taken by plugin {other}",
            f"disable one of the two: --disable-plugin {name}",
        )

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


def _claims(field: OptionField) -> Iterator[str]:
    """Yield everything that a field takes for itself, as messages call it."""
    for key in field.keys:
        yield f"{flag_of(key)} ({key})"
    if field.details.negative_flag:
        yield f"{flag_of(f'no_{field.name}')} (no_{field.name})"
    if field.details.env is not None:
        yield f"the variable {field.details.env}"
    if field.details.pattern is not None:
        yield f"the pattern {flag_of(field.details.pattern)}"
