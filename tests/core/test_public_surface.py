"""``sglang_core.__all__`` is the whole promise to authors of plugins."""

import ast
import inspect
from pathlib import Path

import pytest

import sglang_core
import sglang_plugins_builtin
from sglang_core import testing

BUILT_INS = Path(sglang_plugins_builtin.__file__).parent


def public_names(module):
    for name in module.__all__:
        getattr(module, name)  # some are imported when they are first used
    return sorted(
        name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)
    )


def _constants_classes_functions(name):
    return (not name.isupper(), not name[0].isupper(), name)


@pytest.mark.parametrize("module", [sglang_core, testing], ids=lambda module: module.__name__)
def test_all_is_sorted_and_is_what_the_module_has(module):
    assert list(module.__all__) == sorted(module.__all__, key=_constants_classes_functions)
    assert set(module.__all__) == set(public_names(module))


@pytest.mark.parametrize("name", sglang_core.__all__)
def test_public_name_is_documented(name):
    value = getattr(sglang_core, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        generated = f"{name}("  # what dataclass-like decorators write where there is nothing
        assert value.__doc__
        assert not value.__doc__.startswith(generated)


def imports_of_core(path):
    """Yield (line, name) for each name of core that a file imports; a module stands for itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "sglang_core")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sglang_core":
            inside = node.module.partition(".")[2]
            yield from ((node.lineno, f"{inside}.{alias.name}" if inside else alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", sorted(path.name for path in BUILT_INS.iterdir() if (path / "__init__.py").exists()))
def test_built_in_uses_public_names_only(folder):
    foreign = [
        f"{path.relative_to(BUILT_INS)}:{line} {name}"
        for path in sorted((BUILT_INS / folder).rglob("*.py"))
        for line, name in imports_of_core(path)
        if name not in sglang_core.__all__
    ]

    assert foreign == []
