"""A click command whose options are the settings that plugins registered for it."""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar

import click

from ..options.fields import OptionField
from ..options.groups import OptionGroup
from ..options.host import RunOptions
from ..options.settings import Given, Settings, merge
from ..plugins import PluginManager, PluginRecord
from .flags import FlagGrammar, metavar

R = TypeVar("R")
_GIVENS = "sglang.givens"
_SETTINGS = "sglang.settings"


class SettingsCommand(click.Command):
    """A command that takes every option group registered for its name, ``--config`` and ``--print-config``.

    Declare it with ``@click.command("name", cls=SettingsCommand)`` and :func:`pass_settings`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                help="JSON or YAML file of settings; flags win over it.",
                expose_value=False,
                callback=_keep,
            ),
            click.Option(
                ["--print-config"],
                is_flag=True,
                expose_value=False,
                callback=_keep,
                help="Print every setting with its origin as YAML, and exit.",
            ),
        ]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and one option for each setting, for help and completion."""
        manager = ctx.find_object(PluginManager)
        groups = manager.options.for_command(self.name or "") if manager else ()
        settings = [_click_option(group, field) for group in groups for field in group.fields]
        return [*settings, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block of options for each group, the command's own last."""
        blocks: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                blocks.setdefault(getattr(parameter, "group_title", "Options"), []).append(record)
        for title, records in blocks.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the settings out of the words and leave the rest to click."""
        manager = ctx.ensure_object(PluginManager)
        own = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        grammar = FlagGrammar(
            namespace=manager.options,
            groups=manager.options.for_command(self.name or ""),
            ignored=manager.options.ignored_by(self.name or ""),
            own_flags={*own, *ctx.help_option_names},
            note=quarantine_note(manager),
        )
        if ctx.resilient_parsing:  # completion: the words are not finished yet
            return super().parse_args(ctx, [])
        words = _underscores_to_dashes(args, own)
        parsed = grammar.parse(words)
        ctx.meta[_GIVENS] = parsed.givens
        return super().parse_args(ctx, parsed.rest)

    def invoke(self, ctx: click.Context) -> Any:
        """Merge the settings, configure logging, and run the command (or print the settings)."""
        manager = ctx.ensure_object(PluginManager)
        settings = merge_settings(manager, self.name or "", ctx.meta[_GIVENS], ctx.meta["config"])
        ctx.meta[_SETTINGS] = settings
        configure_logging(settings.of(RunOptions).log_level, manager.records.values())
        if ctx.meta["print_config"]:
            from .print_config import settings_as_yaml

            click.echo(settings_as_yaml(settings), nl=False)
            return None
        return super().invoke(ctx)


def merge_settings(manager: PluginManager, command: str, flags: list[Given], config: Path | None) -> Settings:
    """Return the settings of a command: flags over file over environment over defaults.

    :raises ConfigError: for a key or value that is not right; its origin is named.
    """
    from ..options.sources import given_in_environment, given_in_file  # only where a command runs

    groups = manager.options.for_command(command)
    ignored = manager.options.ignored_by(command)
    in_file = given_in_file(config, manager.options, groups, ignored) if config else []
    return merge(groups, [flags, in_file, given_in_environment(groups)])


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Put the value of a parameter that the command function does not take where ``invoke`` finds it."""
    ctx.meta[parameter.name or ""] = value


def _underscores_to_dashes(words: list[str], own: set[str]) -> list[str]:
    """Spell the command's own flags with dashes; the settings' grammar reads both spellings."""
    spelled = []
    for word in words:
        flag, separator, value = word.partition("=")
        dashed = flag.replace("_", "-")
        spelled.append(dashed + separator + value if dashed in own else word)
    return spelled


def _click_option(group: OptionGroup, field: OptionField) -> click.Option:
    flags = [flag for flag in field.flags if flag.startswith("--")]
    choices = field.shape.choices
    option = click.Option(
        [field.name, *flags, *([f"--no-{field.flag[2:]}"] if field.details.negative_flag else [])],
        type=click.Choice(choices) if choices and not field.shape.is_mapping else click.UNPROCESSED,
        metavar=metavar(field),
        help=_help(field),
        expose_value=False,
        multiple=field.shape.is_many or field.shape.is_mapping,
    )
    option.group_title = group.title  # type: ignore[attr-defined]  # read back in format_options
    return option


def _help(field: OptionField) -> str:
    notes = []
    if field.details.env:
        notes.append(f"env: {field.details.env}")
    if field.default not in (None, (), {}, False, "") and not field.details.is_secret:
        shown = field.default
        if isinstance(shown, tuple):
            shown = " ".join(str(item) for item in shown)
        notes.append(f"default: {str(shown).lower() if isinstance(shown, bool) else shown}")
    return field.details.help + (f"  [{'; '.join(notes)}]" if notes else "")


def pass_settings(function: Callable[..., R]) -> Callable[..., R]:
    """Call a command function with the final :class:`~sglang_core.Settings` as its first argument."""

    def wrapper(*args: Any, **kwargs: Any) -> R:
        return function(click.get_current_context().meta[_SETTINGS], *args, **kwargs)

    return update_wrapper(wrapper, function)


def quarantine_note(manager: PluginManager) -> str:
    """Return a note for messages about unknown names, naming the plugins that did not load."""
    if not manager.failures:
        return ""
    names = ", ".join(record.name for record in manager.failures)
    return f" (plugins that did not load: {names}; see 'sglang plugins list')"


def configure_logging(level: str, plugins: Iterable[PluginRecord] = ()) -> None:
    """Send messages of ``level`` and above to stderr; done once per process, by the command line only.

    Other libraries stay at warnings; the host and the packages of the plugins are heard from ``level`` on.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    for name in {"sglang_core", *(record.target.partition(".")[0] for record in plugins)}:
        logging.getLogger(name).setLevel(level.upper())
