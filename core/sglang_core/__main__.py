"""``python -m sglang_core`` is the ``sglang`` command."""

from .cli.process import run

run()
