"""The generated pages are what the code says now: nothing missing, nothing that is gone."""

import importlib.util
import re
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT

import sglang_core
from sglang_core import create_plugin_manager, testing
from sglang_core.cli.exit_codes import EXIT_CODES

GENERATED = ROOT / "docs" / "generated"
_spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def headings(page, level):
    text = (GENERATED / page).read_text(encoding="utf-8")
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


def hook_signatures():
    return [generate.short_signature(function) for function in generate.hook_functions()]


def fields():
    return [field for group in create_plugin_manager(only_built_ins=True).options for field in group.fields]


@pytest.fixture(scope="module")
def pages():
    return generate.pages()


@pytest.mark.parametrize("name", list(generate.PAGES))
def test_page_is_up_to_date(name, pages):
    assert (GENERATED / name).read_text(encoding="utf-8") == pages[name], "run: python docs/generate.py"


def test_no_other_generated_pages_lie_about():
    assert {path.name for path in GENERATED.iterdir()} == set(generate.PAGES)


@pytest.mark.parametrize("signature", hook_signatures())
def test_hook_is_documented(signature):
    assert f"## {signature}\n" in (GENERATED / "hooks.md").read_text(encoding="utf-8")


def test_documented_hooks_exist():
    assert headings("hooks.md", 2) == hook_signatures()


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_setting_is_documented(field):
    page = (GENERATED / "settings.md").read_text(encoding="utf-8")
    entry = page.partition(f"### {field.name}\n")[2].partition("\n#")[0]

    assert field.details.help in entry
    for spelling in (*field.flags, *field.keys, *filter(None, [field.details.env])):
        assert re.search(rf"`{re.escape(spelling)}[ `]", entry)


def test_documented_settings_exist():
    assert headings("settings.md", 3) == [field.name for field in fields()]


def test_documented_commands_are_the_built_in_ones():
    top_level = [heading for heading in headings("commands.md", 2) if heading.count(" ") == 1]

    commands = create_plugin_manager(only_built_ins=True).commands
    assert top_level == sorted(f"sglang {command.name}" for command in commands)


def test_documented_errors_and_exit_codes_are_those_of_the_code():
    page = (GENERATED / "errors.md").read_text(encoding="utf-8")

    rows = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)}

    assert rows == {error.__name__: code for error, code in EXIT_CODES.items()}
    assert set(generate.errors()) == set(rows)
    assert all(f"── {name} " in page for name in rows)


def test_documented_names_are_the_public_ones():
    assert headings("public-surface.md", 2) == sorted(sglang_core.__all__)


def test_documented_names_of_the_test_kit_are_its_public_ones():
    assert headings("testing.md", 2) == sorted(testing.__all__)


@pytest.mark.parametrize(
    ("page", "name"),
    [("public-surface.md", name) for name in sglang_core.__all__] + [("testing.md", name) for name in testing.__all__],
)
def test_public_name_is_described(page, name):
    entry = (GENERATED / page).read_text(encoding="utf-8").partition(f"## {name}\n")[2]

    assert entry.partition("\n## ")[0].strip()


def test_every_host_variable_is_documented_and_every_documented_one_is_read():
    names = re.compile(r"\bSGLANG_[A-Z_]+[A-Z]\b")
    folders = [Path(sglang_core.__file__).parent, ROOT / "sglang_plugins_builtin", ROOT / "plugins"]
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)

    assert set(names.findall(code)) == set(names.findall(text))
