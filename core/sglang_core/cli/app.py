"""The ``sglang`` command, assembled from the installed plugins."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from ..errors import ConfigError, RequestCancelledError, SglangError
from ..plugins import OWN_DISTRIBUTION, PluginManager, create_plugin_manager, plugin_choice_from_environment
from ..registry import closest
from .exit_codes import EXIT_INTERNAL
from .failures import report, report_defect
from .settings_command import quarantine_note

_DISABLE_FLAG = "--disable-plugin"


class PluginGroup(click.Group):
    """The top-level command: its subcommands are those that plugins registered."""

    def __init__(self, manager: PluginManager) -> None:
        super().__init__(
            name="sglang",
            help="Make images and video clips with diffusion models.",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
            params=[
                click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version),
                click.Option(
                    [_DISABLE_FLAG],
                    multiple=True,
                    expose_value=False,
                    metavar="NAME",
                    help="Do not load a plugin; also as SGLANG_DISABLE_PLUGINS=a,b. Good anywhere on the line.",
                ),
            ],
        )
        self.manager = manager

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted(command.name or "" for command in self.manager.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a plugin, or ``None``."""
        return self.manager.commands.get(cmd_name) if cmd_name in self.manager.commands else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; an unknown one is an error that names the closest."""
        if args and args[0] not in self.manager.commands and not ctx.resilient_parsing:
            close = closest(args[0], self.list_commands(ctx))
            remedy = f"sglang {close}" if close else "sglang --help lists the commands"
            raise ConfigError(f"unknown command {args[0]!r}{quarantine_note(self.manager)}", remedy)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Name the plugins that did not load."""
        for record in self.manager.failures:
            formatter.write_paragraph()
            formatter.write_text(f"Not loaded: {record.error.problem if record.error else ''}")


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        try:
            click.echo(f"sglang {version(OWN_DISTRIBUTION)}")
        except PackageNotFoundError:  # running from a source tree
            click.echo("sglang (not installed)")
        ctx.exit()


def create_cli(manager: PluginManager) -> click.Group:
    """Return the command line of a manager's plugins. Call it with ``obj=manager``."""
    return PluginGroup(manager)


def main(args: Sequence[str] | None = None, standalone_mode: bool = True) -> Any:
    """Run the command line.

    :param args: the words behind ``sglang``; ``None``: those of the process.
    :param standalone_mode: exit the process; otherwise return, and raise what goes wrong.
    """
    words = list(sys.argv[1:] if args is None else args)
    manager = None
    try:
        words, disabled = _take_disabled(words)
        from_environment, allowed = plugin_choice_from_environment()
        manager = create_plugin_manager(disable=disabled | from_environment, allow=allowed)
        _refuse_unknown_plugins(manager, disabled)
        _warn_of_unknown_plugins(manager, from_environment | (allowed or set()))
        result = create_cli(manager).main(words, prog_name="sglang", standalone_mode=False, obj=manager)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:  # a group alone, without a command
        click.echo(error.format_message())
        code = 0
    except click.Abort:
        code = report(RequestCancelledError(), words, manager)
    except click.ClickException as error:
        if not standalone_mode:
            raise
        code = report(ConfigError(error.format_message(), "see --help"), words, manager)
    except (SglangError, KeyboardInterrupt) as error:
        if not standalone_mode:
            raise
        code = report(RequestCancelledError() if isinstance(error, KeyboardInterrupt) else error, words, manager)
    except BrokenPipeError:  # the reader of stdout went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_INTERNAL
    except Exception as error:  # a defect of ours or of a plugin
        if not standalone_mode:
            raise
        code = report_defect(error, words, manager)
    else:
        code = result if isinstance(result, int) else 0
    if standalone_mode:
        sys.exit(code)
    return code


def _take_disabled(words: list[str]) -> tuple[list[str], set[str]]:
    """Take ``--disable-plugin NAME`` out of the words, wherever it stands."""
    rest: list[str] = []
    disabled: set[str] = set()
    position = 0
    while position < len(words):
        flag, separator, value = words[position].partition("=")
        position += 1
        if flag.replace("_", "-") != _DISABLE_FLAG:
            rest.append(words[position - 1])
            continue
        if not separator:
            if position == len(words):
                raise ConfigError(
                    f"{_DISABLE_FLAG} needs a value", "name the plugin, as 'sglang plugins list' shows it"
                )
            value = words[position]
            position += 1
        disabled.add(value)
    return rest, disabled


def _refuse_unknown_plugins(manager: PluginManager, disabled: set[str]) -> None:
    for name in sorted(disabled - set(manager.records)):
        close = closest(name, manager.records)
        remedy = f"{_DISABLE_FLAG} {close}" if close else "see 'sglang plugins list'"
        raise ConfigError(f"{_DISABLE_FLAG} {name}: no plugin of that name is installed", remedy)


def _warn_of_unknown_plugins(manager: PluginManager, named: set[str]) -> None:
    """Say which names of the environment are not installed; an error would break every shell that sets them."""
    unknown = sorted(named - set(manager.records))
    if unknown:
        names = ", ".join(unknown)
        click.echo(f"sglang: SGLANG_PLUGINS or SGLANG_DISABLE_PLUGINS names what is not installed: {names}", err=True)
