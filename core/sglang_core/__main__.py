"""``python -m sglang_core`` is the ``sglang`` command."""

from .cli import main

main()
