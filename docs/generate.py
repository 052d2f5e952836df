"""Writes the pages that come from the code: ``python docs/generate.py``, or ``--check`` to fail if they are stale.

Only the built-in plugins are described, so that the pages do not depend on what is installed beside them.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent))

from sources import (
    PublicName,
    annotation,
    docstring,
    first_sentence,
    markdown,
    public_names,
    short_signature,
    signature,
)

import sglang_core
from sglang_core import OptionField, OptionGroup, PluginManager, SglangError, create_plugin_manager, testing
from sglang_core.cli import SettingsCommand, create_cli
from sglang_core.cli.exit_codes import EXIT_CODES, EXIT_INTERNAL, exit_code
from sglang_core.cli.flags import metavar
from sglang_core.options.convert import expected, to_plain
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER
from sglang_plugins_builtin.openai_api.docs_page import value_words
from sglang_plugins_builtin.openai_api.document import BODIES
from sglang_plugins_builtin.openai_api.fields import RequestFields
from sglang_plugins_builtin.openai_api.paths import all_paths
from sglang_plugins_builtin.openai_api.schemas import request_schema

CORE = Path(sglang_core.__file__).parent
FOLDER = Path(__file__).parent / "generated"
_NOTE = "<!-- Written by docs/generate.py from the code. Change the code, then run it again. -->"


def settings_page(manager: PluginManager) -> Iterator[str]:
    """Every setting: flag, key, variable, value, default."""
    yield "# Settings"
    yield (
        "Every setting has one name. It is a flag on the command line, a key in a configuration file, an argument of "
        "the [Python API](../python-api.md), and where noted an environment variable. "
        "[Configuration](../configuration.md) says which one wins."
    )
    for group in manager.options:
        commands = ", ".join(f"`{command}`" for command in group.commands)
        yield f"## {group.title}"
        yield f"From the plugin `{manager.options.owner(group.name).split(' ')[0]}`, for {commands}."
        for field in group.fields:
            yield from _setting(group, field)


def _setting(group: OptionGroup, field: OptionField) -> Iterator[str]:
    yield f"### {field.name}"
    yield field.details.help
    negative = f", `--no-{field.flag[2:]}`" if field.details.negative_flag else ""
    rows = [f"- flag: `{field.flag} {metavar(field)}`{negative}", f"- key: `{field.name}`"]
    if field.details.aliases:
        aliases = [f"`--{alias.replace('_', '-')}`, `{alias}`" for alias in field.details.aliases]
        rows.append(f"- also: {', '.join(aliases)}")
    if field.details.env:
        rows.append(f"- variable: `{field.details.env}`")
    rows.append(f"- value: {expected(field.shape)}")
    rows.append(f"- default: {_default(field)}")
    yield "\n".join(rows)


def _default(field: OptionField) -> str:
    value = to_plain(field.default)
    if value is None or value in ([], {}):
        return "unset"
    if isinstance(value, list):
        return " ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def commands_page(manager: PluginManager) -> Iterator[str]:
    """Every command: usage, arguments, options of its own, groups of settings."""
    yield "# Commands"
    yield "What each command takes. Commands and settings come from plugins: these are the built-in ones."
    root = create_cli(manager)
    context = click.Context(root, info_name="sglang", obj=manager)
    yield "## sglang"
    yield from _command(manager, root, context)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None  # it was just listed
        yield from _command_tree(manager, command, context)


def _command_tree(manager: PluginManager, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    yield f"## {context.command_path}"
    yield from _command(manager, command, context)
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _command_tree(manager, command.commands[name], context)


def _command(manager: PluginManager, command: click.Command, context: click.Context) -> Iterator[str]:
    yield markdown(command.help or "")
    yield "```text\n" + " ".join([context.command_path, *command.collect_usage_pieces(context)]) + "\n```"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [_option_row(option, context) for option in options]
    if rows:
        yield "\n".join(rows)
    if isinstance(command, SettingsCommand):
        groups = manager.options.for_command(command.name or "")
        links = ", ".join(f"[{group.title}](settings.md#{_slug(group.title)})" for group in groups)
        yield f"Takes the settings of {links}."


def _option_row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None  # no option is hidden
    return f"- `{record[0]}`" + (f": {record[1]}" if record[1] else "")


def _slug(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def hooks_page(manager: PluginManager) -> Iterator[str]:
    """Every hook with its signature and contract."""
    yield "# Hooks"
    yield (
        "What a plugin may implement. A plugin is a module or object with functions of these names, marked with "
        "`hookimpl`; [Writing a plugin](../plugins.md) shows one."
    )
    for function in hook_functions():
        yield f"## {short_signature(function)}"
        yield f"```{{code-block}} python\ndef {signature(function)}: ...\n```"
        yield docstring(function)


def hook_functions() -> list[ast.FunctionDef]:
    """Return the hookspecs in the order they are written."""
    tree = ast.parse((CORE / "hookspecs.py").read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("sglang_")]


def errors_page(manager: PluginManager) -> Iterator[str]:
    """Every error with its exit code."""
    tree = ast.parse((CORE / "errors.py").read_text(encoding="utf-8"))
    yield "# Errors and exit codes"
    yield (
        "Whatever a user can cause ends in one sentence on stderr, a remedy, and an exit code by kind. With `--json` "
        "the same stands on stdout as an object `error` with the fields `type`, `problem`, `remedy` and `exit_code`. "
        "In Python each kind is an exception, a subclass of `SglangError` with the attributes `problem` and `remedy`."
    )
    yield "```text\n" + textwrap.dedent((ast.get_docstring(tree) or "").partition("::\n")[2]).strip() + "\n```"
    yield f"The exit code is 0 for success and {EXIT_INTERNAL} for a defect, which is no error of this tree."
    yield "| error | exit code | meaning |\n|---|---|---|\n" + "\n".join(
        f"| `{error.__name__}` | {exit_code(error('', ''))} | {first_sentence(markdown(error.__doc__ or ''))} |"
        for error in EXIT_CODES
    )


def errors() -> list[str]:
    """Return the names of all error classes below ``SglangError``."""
    return [error.__name__ for error in SglangError.__subclasses__() if error.__module__ == SglangError.__module__]


def formats_page(manager: PluginManager) -> Iterator[str]:
    """Every media encoder."""
    yield "# File formats"
    yield "The extension of the file name chooses the format. Without one, the first that holds the result is taken."
    rows = ["| format | extensions | holds | |", "|---|---|---|---|"]
    for encoder in sorted(manager.media_encoders, key=lambda encoder: encoder.order):
        extensions = ", ".join(f"`.{extension}`" for extension in encoder.extensions)
        kinds = " and ".join({"image": "images", "video": "clips"}[kind] for kind in sorted(encoder.kinds))
        rows.append(f"| {encoder.name} | {extensions} | {kinds} | {first_sentence(markdown(encoder.__doc__ or ''))} |")
    yield "\n".join(rows)


def plugins_page(manager: PluginManager) -> Iterator[str]:
    """Every built-in plugin and what it contributes."""
    yield "# Built-in plugins"
    yield "What each adds; `sglang plugins show NAME` shows the same for the plugins that are installed."
    for record in manager.records.values():
        module = sys.modules[record.target]
        yield f"## {record.name}"
        yield first_sentence(markdown(module.__doc__ or ""))
        kinds = dict.fromkeys(kind for kind, _ in record.contributions)
        rows = {kind: [name for of, name in record.contributions if of == kind] for kind in kinds}
        rows["hooks"] = list(record.hooks)
        yield "\n".join(f"- {kind}: " + ", ".join(f"`{name}`" for name in names) for kind, names in rows.items())


def surface_page(manager: PluginManager) -> Iterator[str]:
    """Every name of the public facade."""
    yield "# Public surface"
    yield (
        "`sglang_core` promises these names to plugins and programs. Everything else in the package may change without "
        "notice."
    )
    yield from _names(sglang_core.__all__, public_names(CORE))


def testing_page(manager: PluginManager) -> Iterator[str]:
    """Every name of what plugin authors test with."""
    yield "# Testing plugins"
    yield f"`sglang_core.testing`: {first_sentence(markdown(testing.__doc__ or ''))}"
    yield from _names(testing.__all__, public_names(CORE / "testing"))


def _names(names: Sequence[str], known: Mapping[str, PublicName]) -> Iterator[str]:
    for name in sorted(names):
        yield f"## {name}"
        yield from _public(known[name])


def _public(public: PublicName) -> Iterator[str]:
    node = public.node
    if isinstance(node, ast.FunctionDef):
        yield f"```{{code-block}} python\ndef {signature(node)}: ...\n```"
        yield docstring(node)
    elif isinstance(node, ast.ClassDef):
        yield docstring(node)
        yield "\n".join(_members(public, node))
    else:
        yield f"```{{code-block}} python\n{ast.unparse(node)}\n```"
        yield public.comment(node)


def _members(public: PublicName, node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.target.id[0] != "_":
            comment = public.comment(member)
            yield f"- `{member.target.id}: {annotation(member.annotation)}`" + (f": {comment}" if comment else "")
        elif isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list)
            returns = annotation(member.returns) if member.returns else "None"
            shown = f"{member.name}: {returns}" if is_property else signature(member, has_owner=True)
            text = first_sentence(docstring(member))
            yield f"- `{shown}`" + (f": {text}" if text else "")


def model_cards_page(manager: PluginManager) -> Iterator[str]:
    """The cards that lie beside the weights of the embedded models."""
    yield "# Model cards"
    cards = sorted(WEIGHTS_FOLDER.glob("*/README.md"))
    yield "The cards of the embedded models." if cards else "This version comes without embedded models."
    for card in cards:
        text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"^# .*\n", "", text.strip(), count=1)
        yield f"## demo/{card.parent.name}"
        yield re.sub(r"^(?=##+ )", "#", text, flags=re.MULTILINE).strip()


def http_api_page(manager: PluginManager) -> Iterator[str]:
    """Every route and every field of the OpenAI API."""
    yield "# HTTP reference"
    yield (
        "The routes of the plugin `openai_api` and what their bodies take. A server tells the same, with the routes of "
        "its other plugins, at `/openapi.json` for programs and at `/docs` for people; [The HTTP API](../api.md) is "
        "the guide."
    )
    rows = ["| | | |", "|---|---|---|"]
    for path, item in all_paths().items():
        rows += [f"| {method.upper()} | `{path}` | {operation['summary']} |" for method, operation in item.items()]
    yield "## Routes"
    yield "\n".join(rows)
    for request, use in BODIES.items():
        yield f"## {request.__name__}"
        yield f"The body of {use}."
        yield from _body_tables(request)


def _body_tables(request: type[RequestFields]) -> Iterator[str]:
    schema = request_schema(request, is_form=True)
    rows = ["| field | takes | |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        mark = " (required)" if name in schema["required"] else ""
        rows.append(f"| `{name}`{mark} | {value_words(field)} | {field['description']} |")
    yield "\n".join(rows)
    refused = [(name, reason) for name, reason in request.unsupported.items() if name not in request.harmless]
    if refused:
        yield "Fields of other servers that are refused, with the reason:"
        yield "\n".join(["| field | |", "|---|---|", *(f"| `{name}` | {reason} |" for name, reason in refused)])


PAGES: dict[str, Callable[[PluginManager], Iterator[str]]] = {
    "commands.md": commands_page,
    "errors.md": errors_page,
    "formats.md": formats_page,
    "hooks.md": hooks_page,
    "http-api.md": http_api_page,
    "model-cards.md": model_cards_page,
    "plugins.md": plugins_page,
    "public-surface.md": surface_page,
    "settings.md": settings_page,
    "testing.md": testing_page,
}


def pages() -> dict[str, str]:
    """Return the text of every generated page by file name."""
    manager = create_plugin_manager(only_built_ins=True)
    if manager.failures:
        raise SystemExit("\n".join(str(record.error) for record in manager.failures))
    return {
        name: "\n\n".join([_NOTE, *(block for block in write(manager) if block.strip())]) + "\n"
        for name, write in PAGES.items()
    }


def stale_pages() -> list[Path]:
    """Return the files that are missing, out of date, or generated no more."""
    wanted = {FOLDER / name: text for name, text in pages().items()}
    there = set(FOLDER.glob("*.md"))
    changed = [path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text]
    return sorted([*changed, *(there - set(wanted))])


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    is_check = parser.parse_args(arguments).check
    stale = stale_pages()
    for path in stale:
        print(f"{'stale' if is_check else 'written'}: {path.relative_to(Path(__file__).parent)}")
    if is_check:
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path in set(stale) - {FOLDER / name for name in PAGES}:
        path.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
