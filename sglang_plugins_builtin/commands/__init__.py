"""The commands ``generate``, ``explain`` and ``plugins``, and the settings of the host."""

import click

from sglang_core import (
    CallOptions,
    ExecutionOptions,
    ModelOptions,
    OffloadOptions,
    OptionGroup,
    OutputOptions,
    RunOptions,
    SamplingOptions,
    hookimpl,
)

from .config import RepeatOptions
from .explain import explain
from .generate import generate
from .plugins import plugins


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    return [
        OptionGroup(name="sampling", settings=SamplingOptions),
        OptionGroup(name="model", settings=ModelOptions),
        OptionGroup(name="output", settings=OutputOptions),
        OptionGroup(name="execution", settings=ExecutionOptions, is_execution=True),
        OptionGroup(name="offload", settings=OffloadOptions, is_execution=True),
        OptionGroup(name="call", settings=CallOptions),
        OptionGroup(name="run", settings=RunOptions),
        OptionGroup(name="repeat", settings=RepeatOptions),
    ]


@hookimpl
def sglang_register_commands() -> list[click.Command]:
    return [generate, explain, plugins]
