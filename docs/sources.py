"""Reads the source of the host: signatures as they are written, docstrings as Markdown.

Signatures come from the syntax tree, not from ``inspect``, so that the pages are the same on every Python version.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_FIELD = re.compile(r":(param|returns|raises)\s*([\w.]*):\s*(.*)", re.DOTALL)


@frozen
class PublicName:
    """A name at the top level of a module: its syntax tree, and the lines of the module."""

    name: str
    node: Definition
    lines: Sequence[str]

    def comment(self, node: ast.stmt) -> str:
        """Return the ``#:`` comment just above the definition or one of its members, as Markdown."""
        return comment_above(self.lines, node.lineno)


def public_names(folder: Path) -> dict[str, PublicName]:
    """Return what the modules below ``folder`` define at their top level, by name."""
    found: dict[str, PublicName] = {}
    for path in sorted(folder.rglob("*.py")):
        for name in _definitions(path.read_text(encoding="utf-8")):
            found.setdefault(name.name, name)
    return found


def _definitions(text: str) -> Iterator[PublicName]:
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield PublicName(node.name, node, lines)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield PublicName(node.targets[0].id, node, lines)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield PublicName(node.target.id, node, lines)


def comment_above(lines: Sequence[str], line: int) -> str:
    """Return the ``#:`` comment that ends just above ``line`` (from 1)."""
    words: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.lstrip().startswith("#:"):
            break
        words.insert(0, text.strip().removeprefix("#:").strip())
    return markdown(" ".join(words))


def signature(function: ast.FunctionDef, *, has_owner: bool = False) -> str:
    """Return ``name(argument: type) -> type`` as written, without ``self`` and ``cls`` for methods."""
    arguments = function.args
    if has_owner and arguments.args and arguments.args[0].arg in {"self", "cls"}:
        arguments.args = arguments.args[1:]
    returns = f" -> {annotation(function.returns)}" if function.returns else ""
    return f"{function.name}({_unquoted(ast.unparse(arguments))}){returns}"


def short_signature(function: ast.FunctionDef) -> str:
    """Return ``name(argument, argument)``."""
    return f"{function.name}({', '.join(argument.arg for argument in function.args.args)})"


def annotation(node: ast.expr) -> str:
    """Return an annotation as text, without the quotes of a forward reference."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _unquoted(text: str) -> str:
    """Take the quotes off forward references; defaults keep theirs."""
    return re.sub(r"(: )'([^']*)'", r"\1\2", text)


def docstring(node: ast.AST) -> str:
    """Return the docstring of a definition as Markdown, empty if it has none."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
        return ""
    return markdown(ast.get_docstring(node) or "")


def first_sentence(text: str) -> str:
    """Return the first paragraph of a text in one line."""
    return " ".join(text.partition("\n\n")[0].split())


def markdown(text: str) -> str:
    """Return a docstring in Markdown: its roles, fields and literal blocks are the only marks it uses."""
    blocks = [_block(block) for block in re.split(r"\n\s*\n", inspect.cleandoc(text))]
    return "\n\n".join(block for block in blocks if block)


def _block(block: str) -> str:
    if not block.strip() or block.strip() == "::":
        return ""
    if block.startswith(":"):
        return "\n".join(_field(field) for field in re.split(r"\n(?=:)", block))
    if block.startswith("\b"):  # click's mark for lines to keep
        return f"```text\n{inspect.cleandoc(block.removeprefix(chr(8)))}\n```"
    if block.startswith("    "):
        return f"```text\n{inspect.cleandoc(block)}\n```"
    if block.startswith(".. versionadded::"):
        return f"Since version {block.split('::')[1].strip()}."
    return _plain(block).removesuffix("::")


def _plain(text: str) -> str:
    return _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text).replace("``", "`")


def _field(text: str) -> str:
    field = _FIELD.fullmatch(text)
    assert field is not None, f"not a field of a docstring: {text}"
    kind, name, rest = field[1], field[2], " ".join(_plain(field[3]).split())
    label = {"param": f"`{name}`", "returns": "returns", "raises": f"raises `{name}`"}[kind]
    return f"- {label}: {rest}"
