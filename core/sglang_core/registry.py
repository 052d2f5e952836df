"""Open, string-keyed registries: names, aliases, conflicts, availability."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from .errors import ConfigError, PluginError

#: From which share of equal characters on two names count as one mistyped.
_NEAR = 0.6
_WORD_BREAK = re.compile("[-_]+")


@frozen
class Availability:
    """Whether something can work here; if not, why, and what would help."""

    is_available: bool
    reason: str = ""
    remedy: str = ""

    @classmethod
    def yes(cls, reason: str = "") -> "Availability":
        """Return the positive answer, with an optional note (a version, a device)."""
        return cls(True, reason)

    @classmethod
    def no(cls, reason: str, remedy: str) -> "Availability":
        """Return the negative answer, with its reason and what would help."""
        return cls(False, reason, remedy)


class Named(Protocol):
    """What every contribution to a registry has."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""


N = TypeVar("N", bound=Named)


class Registry(Generic[N]):
    """Contributions of one kind by name and alias, each with the plugin it came from.

    :param kind: how messages call one item, for example ``"execution backend"``.
    :param also_claimed: further spellings that an item takes for itself, and under which it is found.
    """

    def __init__(self, kind: str, also_claimed: Callable[[N], Iterable[str]] = lambda item: ()) -> None:
        self.kind = kind
        self._also_claimed = also_claimed
        self._items: dict[str, N] = {}
        self._owners: dict[str, str] = {}
        self._aliases: dict[str, str] = {}

    def add(self, item: N, owner: str) -> None:
        """Add ``item`` for the plugin ``owner``.

        :raises PluginError: if its name or an alias is taken; both owners are named.
        """
        spellings = (item.name, *getattr(item, "aliases", ()), *self._also_claimed(item))
        for spelling in spellings:
            self._refuse_taken(spelling, owner)
        self._items[item.name] = item
        for spelling in spellings:
            self._owners[spelling] = owner
            self._aliases[spelling] = item.name

    def _refuse_taken(self, spelling: str, owner: str) -> None:
        if spelling not in self._owners:
            return
        raise PluginError(
            f"{self.kind} {spelling!r} of plugin {owner} is already taken by plugin {self._owners[spelling]}",
            f"disable one of the two: --disable-plugin {owner.split(' ')[0]}",
        )

    def get(self, name: str) -> N:
        """Return the item called ``name``, by name or alias.

        :raises ConfigError: if there is none; the message lists the names and the closest match.
        """
        if name not in self._aliases:
            raise ConfigError(*unknown_name(self.kind, name, self._items))
        return self._items[self._aliases[name]]

    def remove(self, owner: str) -> None:
        """Take back everything that ``owner`` added."""
        gone = {spelling for spelling, by in self._owners.items() if by == owner}
        for spelling in gone:
            self._items.pop(spelling, None)
            del self._owners[spelling]
            del self._aliases[spelling]

    def owner(self, name: str) -> str:
        """Return the plugin that contributed ``name``."""
        return self._owners[name]

    def __contains__(self, name: object) -> bool:
        return name in self._aliases

    def __iter__(self) -> Iterator[N]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """Return problem and remedy for a name that is not among the known ones."""
    names = sorted(known)
    choices = ", ".join(names) or "none are installed"
    close = closest(name, names)
    remedy = f"use {close!r}" if close else f"use one of: {choices}"
    return f"unknown {kind} {name!r} (known: {choices})", remedy


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to a mistyped one, if any is near.

    Words that two names share say nothing about a slip in the others: ``num_gpus`` is not ``num_outputs`` mistyped,
    however long ``num_`` is. So the words that differ must be near as well; a name that only lacks words is near.
    """
    import difflib  # only after a mistake

    known = list(known)
    matches = difflib.get_close_matches(name, known, n=max(1, len(known)), cutoff=_NEAR)
    return next((match for match in matches if _differ_little(name, match)), None)


def _differ_little(name: str, other: str) -> bool:
    import difflib  # as above

    words, other_words = Counter(_WORD_BREAK.split(name)), Counter(_WORD_BREAK.split(other))
    rest, other_rest = ("".join((a - b).elements()) for a, b in ((words, other_words), (other_words, words)))
    return not rest or not other_rest or difflib.SequenceMatcher(None, rest, other_rest).ratio() >= _NEAR
