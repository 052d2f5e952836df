"""What ``sglang doctor`` asks."""

from collections.abc import Callable
from typing import Literal

from attrs import frozen

CheckStatus = Literal["ok", "warning", "problem"]


@frozen(kw_only=True)
class CheckResult:
    """The answer of one check: what was found, and what would help."""

    status: CheckStatus
    message: str
    remedy: str = ""


@frozen(kw_only=True)
class Check:
    """One question about this machine. ``run`` may import what it needs; what it raises is shown as a problem."""

    name: str
    run: Callable[[], CheckResult]
