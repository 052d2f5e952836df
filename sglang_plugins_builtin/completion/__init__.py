"""``sglang completion``: the tab key in bash, zsh and fish."""

from typing import TYPE_CHECKING

from sglang_core import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def sglang_register_commands() -> "list[click.Command]":
    """Add ``completion``."""
    from .command import completion

    return [completion]
