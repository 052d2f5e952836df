"""The grammar of setting flags: what click alone does not read.

Booleans stand alone or take ``true`` or ``false``; a flag with several values takes words up to the next flag;
mappings take ``name=value`` words, a JSON object, or dotted flags; underscores are as good as dashes.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile

from attrs import field as attrs_field
from attrs import frozen

from ..errors import ConfigError
from ..options.convert import expected
from ..options.fields import OptionField, flag_of, key_of
from ..options.groups import OptionGroup
from ..options.namespace import OptionNamespace, Target
from ..options.settings import Given, Origin
from ..registry import closest


@frozen(kw_only=True)
class ParsedFlags:
    """The settings found among the words, and the words that are left for click."""

    givens: list[Given] = attrs_field(factory=list)
    rest: list[str] = attrs_field(factory=list)


@frozen(kw_only=True)
class FlagGrammar:
    """Splits words into settings and the rest.

    :param own_flags: flags (and switches) of the command itself, which click reads.
    """

    namespace: OptionNamespace
    groups: Sequence[OptionGroup]
    ignored: Sequence[OptionGroup]
    own_flags: Collection[str]
    #: Added to the message for an unknown flag, for example about plugins that did not load.
    note: str = ""

    def parse(self, words: Sequence[str]) -> ParsedFlags:
        """Return the settings among ``words``.

        :raises ConfigError: for an unknown flag (with the closest one) or a flag without its value.
        """
        parsed = ParsedFlags()
        position = 0
        while position < len(words):
            word = words[position]
            if word == "--":
                parsed.rest.extend(words[position:])
                break
            position += 1
            flag, separator, attached = word.partition("=")
            if not flag.startswith("--") or flag in self.own_flags:
                parsed.rest.append(word)
                continue
            position = self._read(flag, attached if separator else None, words, position, parsed)
        return parsed

    def _read(self, flag: str, attached: str | None, words: Sequence[str], position: int, parsed: ParsedFlags) -> int:
        """Read the values of one flag; return the position of the first word behind them."""
        target, negative = self._find(flag)
        shape = target.field.shape
        values: list[str]
        if negative:
            if attached is not None:
                raise ConfigError(f"{flag} takes no value", f"write {flag} alone")
            values = ["false"]
        elif attached is not None:
            values = [attached]
        elif shape.kind == "bool" and not shape.is_many and (not shape.is_mapping or target.entry is not None):
            values = [words[position]] if position < len(words) and _is_bool_word(words[position]) else ["true"]
            position += 1 if position < len(words) and _is_bool_word(words[position]) else 0
        else:
            takes_many = shape.is_many or (shape.is_mapping and target.entry is None and shape.kind != "json")
            end = position + 1 if not takes_many else len(words)
            values = list(takewhile(lambda word: not self._ends_values(word), words[position:end]))
            position += len(values)
        if not values:
            raise ConfigError(f"{flag} needs a value", f"give {flag} {expected(shape)}")
        if target.group in self.groups:
            self._keep(parsed, target, flag, values)
        return position

    @staticmethod
    def _keep(parsed: ParsedFlags, target: Target, flag: str, values: list[str]) -> None:
        shape, origin = target.field.shape, Origin(kind="flag", label=flag)
        is_many = shape.is_many or (shape.is_mapping and target.entry is None)
        earlier = [given for given in parsed.givens if given.field is target.field and given.entry == target.entry]
        value: object = [*(text for given in earlier for text in given.value), *values] if is_many else values[-1]
        for given in earlier:
            parsed.givens.remove(given)
        parsed.givens.append(Given(field=target.field, value=value, origin=origin, entry=target.entry))

    def _ends_values(self, word: str) -> bool:
        """Say whether a word ends the values of the flag before it: a flag does, a negative number does not."""
        return word.startswith("--") or word in self.own_flags

    def _find(self, flag: str) -> tuple[Target, bool]:
        """Return what a flag leads to, and whether it is the negative form."""
        groups = [*self.groups, *self.ignored]
        head, dot, entry = flag.partition(".")
        target = self.namespace.find(key_of(head) + dot + entry.replace("-", "_"), groups)
        if target is not None:
            return target, False
        if flag.startswith(("--no-", "--no_")):
            target = self.namespace.find(key_of(flag)[3:], groups)
            if target is not None and target.field.details.negative_flag:
                return target, True
        raise self._unknown(flag, groups)

    def _unknown(self, flag: str, groups: Sequence[OptionGroup]) -> ConfigError:
        key = key_of(flag.partition(".")[0])
        elsewhere = next((group for group in self.namespace if key in self.namespace.known_keys([group])), None)
        if elsewhere is not None and elsewhere not in groups:
            commands = ", ".join(elsewhere.commands)
            return ConfigError(f"{flag} does not apply: it is an option of {commands}", "leave it out")
        known = [flag_of(key) for key in self.namespace.known_keys(groups)]
        close = closest(flag_of(key_of(flag)), [*known, *self.own_flags])
        remedy = f"use {close}" if close else "see --help for the options"
        return ConfigError(f"unknown option {flag}{self.note}", remedy)


def _is_bool_word(word: str) -> bool:
    return word.lower() in {"true", "false"}


def metavar(option_field: OptionField) -> str:
    """Return what stands for the value of a setting in ``--help``."""
    shape = option_field.shape
    if option_field.details.metavar:
        return option_field.details.metavar
    if shape.kind == "choice":
        one = "|".join(shape.choices)
    else:
        one = {"bool": "true|false", "path": "PATH", "json": "JSON"}.get(shape.kind, shape.kind.upper())
    if shape.is_mapping and shape.kind != "json":
        return f"NAME={one} ..."
    return f"{one} ..." if shape.is_many else one
