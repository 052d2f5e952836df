"""The code blocks of the documentation, each with the place where it stands.

A comment on the line above a block says what is special about it:

``<!-- model -->``            it needs the embedded model
``<!-- run -->``              a console block is run, and its output compared; ``...`` stands for anything
``<!-- run: model -->``       both
``<!-- file: run.yaml -->``   the blocks that are run find it as this file; ``, wrong`` if it is a wrong one
``<!-- not settings -->``     YAML or JSON that is no configuration file
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/generated/*.md", "plugins/*/*.md", "changes/*.md")
    for path in ROOT.glob(pattern)
)
HAS_MODEL = (WEIGHTS_FOLDER / "shapes-image" / "model_index.json").is_file()
NEEDS_MODEL = pytest.mark.skipif(not HAS_MODEL, reason="the embedded model is not in this checkout")


@frozen
class Block:
    """A fenced block: its language, text and marks, and the line of its fence."""

    path: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def id(self) -> str:
        """Return ``docs/page.md:line``."""
        return f"{self.path.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def marks(self) -> set[str]:
        """Return the words of the comment above the block."""
        return set(re.split(r"[:,]\s*", self.note)) if self.note else set()

    @property
    def file_name(self) -> str | None:
        """Return the name under which blocks that are run find this one."""
        match = re.match(r"file: ([\w.]+)", self.note)
        return match[1] if match else None

    def as_parameter(self) -> object:
        """Return the block as a parameter of a test, skipped where the model it needs is absent."""
        return pytest.param(self, id=self.id, marks=[pytest.mark.model, NEEDS_MODEL] if "model" in self.marks else [])


def blocks(*languages: str) -> list[Block]:
    """Return the blocks in one of the languages, on every page."""
    return [block for page in PAGES for block in _blocks_of(page) if block.language in languages]


def _blocks_of(path: Path) -> Iterator[Block]:
    lines = path.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        above = re.fullmatch(r"<!-- (.+) -->", lines[opened - 1]) if opened else None
        text = "\n".join(lines[opened + 1 : number]) + "\n"
        yield Block(path, opened + 1, lines[opened].removeprefix("```").strip(), text, above[1] if above else "")
        opened = None
    assert opened is None, f"{path}:{(opened or 0) + 1}: the block has no end"
