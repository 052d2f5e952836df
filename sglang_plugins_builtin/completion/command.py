"""The ``completion`` command."""

import click

from sglang_core import ConfigError

_PROGRAM = "sglang"
#: click reads the request of the shell from this variable.
_VARIABLE = "_SGLANG_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and their values with the tab key.

    \b
    bash (4.4 or newer), in ~/.bashrc:
        eval "$(sglang completion bash)"
    zsh, in ~/.zshrc, behind compinit:
        eval "$(sglang completion zsh)"
    fish, once:
        sglang completion fish > ~/.config/fish/completions/sglang.fish

    Then open a new shell.
    """  # noqa: D301 - \b is click's mark for lines to keep
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise ConfigError(f"this version of click completes no {shell}", f"use one of: {', '.join(SHELLS)}")
    script = completion_class(ctx.find_root().command, {}, _PROGRAM, _VARIABLE)
    # not script.source(): for bash it starts the installed bash, which need not be the one the script is for
    click.echo(script.source_template % script.source_vars())
