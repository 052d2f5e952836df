"""What a pipeline class says about itself in its source, read without importing it.

Importing diffusers takes seconds, parsing one of its classes takes milliseconds; and a repo's own code must not run
before somebody trusts it.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from attrs import field, frozen

#: What the results of pipelines that make pictures or clips are called.
VIDEO_RESULTS = frozenset({"frames", "video", "videos"})
IMAGE_RESULTS = frozenset({"images", "image"})
_LARGEST_FILE_BYTES = 4 * 2**20


@frozen(kw_only=True)
class PipelineCode:
    """The call of a pipeline class: its parameters with defaults, and the names of what it returns."""

    class_name: str
    #: Defaults by parameter; ``None`` also stands for one that is computed.
    parameters: dict[str, Any]
    required: tuple[str, ...]
    takes_any: bool
    #: Empty when the source does not tell.
    results: frozenset[str]
    #: What it is made of: the arguments of its ``__init__`` that have no default.
    components: frozenset[str] = frozenset()
    text: str = field(repr=False)


@cache
def diffusers_folder() -> Path | None:
    """Return where diffusers is installed, or ``None``; it is not imported."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def installed_pipeline(class_name: str) -> PipelineCode | None:
    """Return the code of a pipeline class of the installed diffusers, or ``None`` if it has none of that name."""
    for path in _candidate_files(class_name):
        code = parse_pipeline(path.read_text(encoding="utf-8"), class_name)
        if code is not None:
            return code
    return None


def _candidate_files(class_name: str) -> Iterator[Path]:
    """Yield the files that may define a class, from the package table of ``diffusers.pipelines``."""
    folder = diffusers_folder()
    if folder is None or not class_name.isidentifier():
        return
    pipelines = folder / "pipelines"
    table = (pipelines / "__init__.py").read_text(encoding="utf-8")
    position = table.find(f'"{class_name}"')
    packages = re.findall(r'_import_structure\["(\w+)"\]', table[:position]) if position >= 0 else []
    if not packages:
        return
    package = pipelines / packages[-1]
    candidates = sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    definition = re.compile(rf"^class {class_name}\b", re.MULTILINE)
    for path in candidates:
        if definition.search(path.read_text(encoding="utf-8")):
            yield path


def parse_pipeline(text: str, class_name: str) -> PipelineCode | None:
    """Read a class out of Python source; ``None`` if it is not there or is not Python.

    A class without a ``__call__`` of its own has that of the first base that is in the same file or in diffusers.
    """
    if len(text) > _LARGEST_FILE_BYTES:
        return None
    try:
        return _of_class(text, class_name, set())
    except (SyntaxError, ValueError, RecursionError):
        return None


def _of_class(text: str, name: str, seen: set[str]) -> PipelineCode | None:
    block = _class_block(text, name)
    if block is None or name in seen:
        return None
    node = next(item for item in ast.parse(block).body if isinstance(item, ast.ClassDef))
    calls = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__call__"]
    if calls:
        makers = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return _of_call(name, calls[-1], block, frozenset(_required_names(makers[-1])) if makers else frozenset())
    for base in node.bases:
        parent = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        found = _of_class(text, parent, seen | {name}) or installed_pipeline(parent)
        if found is not None:
            return found
    return None


def _class_block(text: str, name: str) -> str | None:
    """Return the lines of a top-level class; parsing only them takes a third of the time of the whole file."""
    start = re.search(rf"^class {re.escape(name)}\b", text, re.MULTILINE) if name else None
    if start is None:
        return None
    end = re.compile(r"^[^\s#)\]}]", re.MULTILINE).search(text, start.end())
    return text[start.start() : end.start() if end else None]


def _required_names(function: ast.FunctionDef) -> list[str]:
    positional = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]][1:]  # without self
    return positional[: len(positional) - len(function.args.defaults)]


def _of_call(class_name: str, call: ast.FunctionDef, text: str, components: frozenset[str]) -> PipelineCode:
    positional = [*call.args.posonlyargs, *call.args.args][1:]  # without self
    defaults = call.args.defaults
    missing = len(positional) - len(defaults)
    parameters: dict[str, Any] = {argument.arg: None for argument in positional[: max(missing, 0)]}
    required = list(parameters)
    for argument, default in zip(positional[max(missing, 0) :], defaults[-len(positional) or None :], strict=False):
        parameters[argument.arg] = _literal(default)
    for argument, keyword_default in zip(call.args.kwonlyargs, call.args.kw_defaults, strict=True):
        parameters[argument.arg] = None if keyword_default is None else _literal(keyword_default)
        if keyword_default is None:
            required.append(argument.arg)
    takes_any = False
    if call.args.kwarg is not None:
        named, takes_any = _uses_of_further(call, call.args.kwarg.arg)
        parameters.update(dict.fromkeys(named))
    return PipelineCode(
        class_name=class_name,
        parameters=parameters,
        required=tuple(required),
        takes_any=takes_any,
        results=frozenset(_results(call)),
        components=components,
        text=text,
    )


def _uses_of_further(call: ast.FunctionDef, name: str) -> tuple[list[str], bool]:
    """Return which arguments a call takes out of its ``**kwargs`` by name, and whether it uses them otherwise.

    Most calls have them for the sake of two retired arguments, and would drop any other without a word.
    """
    named = [
        node.args[0].value
        for node in ast.walk(call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == name
        and node.func.attr in {"pop", "get"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(call))
    return named, uses > len(named)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def _results(call: ast.FunctionDef) -> Iterator[str]:
    """Yield the keywords of ``return SomeOutput(images=...)``."""
    for node in ast.walk(call):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            yield from (keyword.arg for keyword in node.value.keywords if keyword.arg)
            if isinstance(node.value.func, ast.Name) and node.value.func.id == "ImagePipelineOutput":
                yield "images"
