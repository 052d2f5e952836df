"""The ``diffusers`` backend: runs any pipeline folder that diffusers can load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import Check, hookimpl

from .backend import DiffusersBackend
from .checks import check_accelerate, check_diffusers, check_transformers
from .config import DIFFUSERS_GROUP

if TYPE_CHECKING:
    from sglang_core import ExecutionBackend, OptionGroup


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add what only this backend can be told."""
    return [DIFFUSERS_GROUP]


@hookimpl
def sglang_register_execution_backends() -> list[ExecutionBackend]:
    """Add ``--backend diffusers``."""
    return [DiffusersBackend()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    """Add what this backend needs of the machine."""
    return [
        Check(name="diffusers", run=check_diffusers),
        Check(name="transformers", run=check_transformers),
        Check(name="accelerate", run=check_accelerate),
    ]
