"""``sglang plugins``: what is installed, what it contributes, what does not load and why."""

import json
from typing import Any

import click

from sglang_core import ConfigError, PluginManager, PluginRecord, closest


@click.group("plugins", short_help="Show the installed plugins.")
def plugins() -> None:
    """Show the installed plugins."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_plugins(as_json: bool) -> None:
    """List every plugin, with its package, version and state."""
    manager = click.get_current_context().ensure_object(PluginManager)
    records = list(manager.records.values())
    if as_json:
        click.echo(json.dumps({"plugins": [_record_to_json(record) for record in records]}, ensure_ascii=False))
        return
    name_width = max((len(record.name) for record in records), default=0)
    package_width = max((len(_package(record)) for record in records), default=0)
    for record in records:
        click.echo(f"{record.name:<{name_width}}  {_package(record):<{package_width}}  {_state(record)}")
        if record.error is not None:
            click.echo(f"  {record.error.problem}\n  Try: {record.error.remedy}")


@plugins.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_plugin(name: str, as_json: bool) -> None:
    """Show one plugin: its hooks, options, contributions and load time."""
    manager = click.get_current_context().ensure_object(PluginManager)
    if name not in manager.records:
        close = closest(name, manager.records)
        remedy = f"sglang plugins show {close}" if close else "see 'sglang plugins list'"
        raise ConfigError(f"no plugin {name!r} is installed", remedy)
    record = manager.records[name]
    options = _options(manager, record)
    if as_json:
        click.echo(json.dumps({**_record_to_json(record), "options": options}, ensure_ascii=False))
        return
    click.echo(f"{record.name}  {_package(record)}  {_state(record)}")
    click.echo(f"  module     {record.target}")
    click.echo(f"  load time  {record.load_ms:.1f} ms")
    click.echo(f"  hooks      {', '.join(record.hooks) or 'none'}")
    for kind, contribution in record.contributions:
        click.echo(f"  {kind}: {contribution}")
    for option in options:
        env = f", {option['env']}" if option["env"] else ""
        click.echo(f"  {option['flag']} ({option['key']}{env})  {option['help']}")
    if record.error is not None:
        click.echo(f"  {record.error.problem}\n  Try: {record.error.remedy}")


def _package(record: PluginRecord) -> str:
    return f"{record.distribution} {record.version}".strip()


def _state(record: PluginRecord) -> str:
    if record.is_disabled:
        return "disabled"
    return "failed" if record.error is not None else "ok"


def _record_to_json(record: PluginRecord) -> dict[str, Any]:
    error = record.error
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "module": record.target,
        "state": _state(record),
        "load_ms": round(record.load_ms, 2),
        "hooks": list(record.hooks),
        "contributions": [{"kind": kind, "name": name} for kind, name in record.contributions],
        "error": None if error is None else {"problem": error.problem, "remedy": error.remedy},
    }


def _options(manager: PluginManager, record: PluginRecord) -> list[dict[str, Any]]:
    return [
        {"flag": field.flag, "key": field.name, "env": field.details.env, "help": field.details.help}
        for group in manager.options
        if manager.options.owner(group.name) == record.owner
        for field in group.fields
    ]
