"""Asks every check and keeps what each answered."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import asdict, evolve, frozen

from sglang_core import Check, CheckResult, CheckStatus, PluginManager, SglangError

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(ACCESS|API)_?KEY", re.IGNORECASE)
_MIN_SECRET_LENGTH = 6  # shorter values ("1", "true") are switches, and would blot out half of a text
_STATUSES: tuple[CheckStatus, ...] = ("ok", "warning", "problem")


@frozen(kw_only=True)
class Finding:
    """What one check of one plugin said."""

    plugin: str
    check: str
    status: CheckStatus
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self)


def examine(manager: PluginManager, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what every check of every plugin says, and each quarantined plugin as a problem.

    A check that raises is a problem, never an exception. Values of variables that hold secrets are blotted out.
    """
    for record in manager.failures:
        error = record.error
        if error is not None:
            yield _without_secrets(_problem(record.owner, "load", error), environ)
    for check in manager.checks:
        yield _without_secrets(_ask(manager.checks.owner(check.name), check), environ)


def count_statuses(findings: Iterable[Finding]) -> dict[CheckStatus, int]:
    """Return how many findings there are of each status."""
    counts = dict.fromkeys(_STATUSES, 0)
    for finding in findings:
        counts[finding.status] += 1
    return counts


def _ask(plugin: str, check: Check) -> Finding:
    try:
        # what foreign code prints while it is imported must not mix with the answer on stdout
        with contextlib.redirect_stdout(sys.stderr):
            result = check.run()
    except (Exception, SystemExit) as error:  # a check is foreign code and may raise anything
        return _problem(plugin, check.name, error)
    if not isinstance(result, CheckResult) or result.status not in _STATUSES:
        return _problem(plugin, check.name, TypeError(f"the check returned {result!r} instead of a CheckResult"))
    return Finding(plugin=plugin, check=check.name, status=result.status, message=result.message, remedy=result.remedy)


def _problem(plugin: str, check: str, error: BaseException) -> Finding:
    if isinstance(error, SglangError):
        message, remedy = error.problem, error.remedy
    else:
        lines = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        remedy = f"if that does not help you, report it to the authors of {plugin}, or disable the plugin"
    return Finding(plugin=plugin, check=check, status="problem", message=message, remedy=remedy)


def _without_secrets(finding: Finding, environ: Mapping[str, str]) -> Finding:
    message, remedy = finding.message, finding.remedy
    for name, value in environ.items():
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_SECRET_LENGTH:
            message, remedy = message.replace(value, f"<{name}>"), remedy.replace(value, f"<{name}>")
    return evolve(finding, message=message, remedy=remedy)
