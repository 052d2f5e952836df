"""The attention backends of this package, and ``sglang attention``, which lists and times them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .backends import BUILT_IN
from .command import attention

if TYPE_CHECKING:
    import click

    from sglang_core import AttentionBackend


@hookimpl
def sglang_register_attention_backends() -> list[AttentionBackend]:
    return list(BUILT_IN)


@hookimpl
def sglang_register_commands() -> list[click.Command]:
    return [attention]
