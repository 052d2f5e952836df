"""The commands ``generate``, ``serve``, ``explain``, ``uploads`` and ``plugins``, and the settings of the host."""

import click

from sglang_core import (
    AttentionOptions,
    CallOptions,
    ExecutionOptions,
    JobOptions,
    ModelOptions,
    OffloadOptions,
    OptionGroup,
    OutputOptions,
    RunOptions,
    SamplingOptions,
    ServerOptions,
    StorageOptions,
    hookimpl,
)

from .config import RepeatOptions
from .explain import explain
from .generate import generate
from .plugins import plugins
from .serve import serve
from .uploads import uploads

#: The commands that load and run a model.
_RUNNING = ("generate", "explain", "serve")


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    return [
        OptionGroup(name="sampling", settings=SamplingOptions),
        OptionGroup(name="model", settings=ModelOptions, commands=_RUNNING),
        OptionGroup(name="output", settings=OutputOptions, commands=_RUNNING),
        OptionGroup(name="execution", settings=ExecutionOptions, commands=_RUNNING, is_execution=True),
        OptionGroup(name="attention", settings=AttentionOptions, commands=_RUNNING, is_execution=True),
        OptionGroup(name="offload", settings=OffloadOptions, commands=_RUNNING, is_execution=True),
        OptionGroup(name="call", settings=CallOptions, commands=_RUNNING),
        OptionGroup(
            name="storage",
            settings=StorageOptions,
            commands=("generate", "serve", "uploads"),
            ignored_by=("explain",),
        ),
        OptionGroup(name="server", settings=ServerOptions, commands=("serve",), ignored_by=("generate", "explain")),
        OptionGroup(name="jobs", settings=JobOptions, commands=("serve",), ignored_by=("generate", "explain")),
        OptionGroup(name="run", settings=RunOptions, commands=_RUNNING),
        OptionGroup(name="repeat", settings=RepeatOptions),
    ]


@hookimpl
def sglang_register_commands() -> list[click.Command]:
    return [generate, serve, explain, uploads, plugins]
