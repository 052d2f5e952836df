"""The ``doctor`` command."""

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from sglang_core import CheckStatus, PluginManager

if TYPE_CHECKING:
    from .findings import Finding

_COLOURS: dict[CheckStatus, str] = {"ok": "green", "warning": "yellow", "problem": "red"}
_MARK_WIDTH = 9


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.make_pass_decorator(PluginManager)
def doctor(manager: PluginManager, is_json: bool) -> None:
    """Check this machine and every plugin, and say what would help.

    The exit code is 0 when there is no problem (warnings are none), else 1.
    """
    from .findings import count_statuses, examine

    findings = list(examine(manager))
    counts = count_statuses(findings)
    if is_json:
        answer = {"ok": not counts["problem"], "counts": counts, "checks": [finding.to_json() for finding in findings]}
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(_report(findings, counts, shutil.get_terminal_size().columns))
    click.get_current_context().exit(1 if counts["problem"] else 0)


def _report(findings: "Sequence[Finding]", counts: Mapping[CheckStatus, int], width: int) -> str:
    """Return the table, grouped by plugin in the order of the findings."""
    name_width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for plugin, group in groupby(findings, key=lambda finding: finding.plugin):
        lines.append(click.style(plugin, bold=True))
        for finding in group:
            lines += _rows(finding, name_width, width)
        lines.append("")
    return "\n".join([*lines, ", ".join(_count(number, status) for status, number in counts.items())])


def _rows(finding: "Finding", name_width: int, width: int) -> list[str]:
    indent = " " * (2 + _MARK_WIDTH + name_width + 2)
    room = max(30, width - len(indent))
    message = textwrap.wrap(finding.message, room, break_on_hyphens=False) or [""]
    remedy = textwrap.wrap(f"Try: {finding.remedy}", room, break_on_hyphens=False) if finding.remedy else []
    mark = click.style(finding.status.ljust(_MARK_WIDTH), fg=_COLOURS[finding.status])
    first = f"  {mark}{finding.check.ljust(name_width)}  {message[0]}"
    return [first, *(indent + line for line in [*message[1:], *remedy])]


def _count(number: int, status: CheckStatus) -> str:
    return f"{number} {status}" if status == "ok" or number == 1 else f"{number} {status}s"
