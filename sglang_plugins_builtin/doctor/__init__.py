"""``sglang doctor``: whether this machine is fit, and what would help."""

from typing import TYPE_CHECKING

from sglang_core import Check, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def sglang_register_commands() -> "list[click.Command]":
    """Add ``doctor``."""
    from .command import doctor

    return [doctor]


@hookimpl
def sglang_register_checks() -> list[Check]:
    """Add what is asked of every machine."""
    from . import folders, machine, software

    return [
        Check(name="python", run=software.check_python),
        Check(name="platform", run=machine.check_platform),
        Check(name="packages", run=software.check_packages),
        Check(name="torch", run=software.check_torch),
        Check(name="devices", run=software.check_devices),
        Check(name="bf16", run=machine.check_bf16),
        Check(name="memory", run=machine.check_memory),
        Check(name="output-folder", run=folders.check_output_folder),
        Check(name="hub-cache", run=folders.check_hub_cache),
        Check(name="diffusion-cache", run=folders.check_diffusion_cache),
    ]
