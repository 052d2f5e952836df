"""Managers and settings for tests."""

from typing import Any

from ..errors import ConfigError
from ..hookspecs import hookimpl
from ..options import OptionGroup, Origin, Settings
from ..options.host import (
    AttentionOptions,
    CallOptions,
    ExecutionOptions,
    ModelOptions,
    OffloadOptions,
    OutputOptions,
    RunOptions,
    SamplingOptions,
)
from ..options.settings import Given, merge
from ..options.storage import StorageOptions
from ..plugins import PluginManager


class HostOptions:
    """A plugin that brings the settings of the host and nothing else."""

    @hookimpl
    def sglang_register_options(self) -> list[OptionGroup]:
        """Return the groups that planning and running read."""
        plain = (SamplingOptions, ModelOptions, OutputOptions, CallOptions, RunOptions, StorageOptions)
        return [
            *(OptionGroup(name=group.__name__, settings=group) for group in plain),
            OptionGroup(name="execution", settings=ExecutionOptions, is_execution=True),
            OptionGroup(name="attention", settings=AttentionOptions, is_execution=True),
            OptionGroup(name="offload", settings=OffloadOptions, is_execution=True),
        ]


def bare_manager(*, host_options: bool = False) -> PluginManager:
    """Return a manager without plugins: what is installed on this machine does not change a test.

    :param host_options: register the settings of the host, as planning and running need them.
    """
    manager = PluginManager()
    if host_options:
        manager.register(HostOptions(), "host_options")
    return manager


def make_settings(manager: PluginManager, command: str = "generate", **values: Any) -> Settings:
    """Return the settings of a command with values from Python by name or alias; the environment is not read.

    :raises ConfigError: for a name or value that is not right.
    """
    groups = manager.options.for_command(command)
    givens = []
    for name, value in values.items():
        target = manager.options.find(name, groups)
        if target is None:
            raise ConfigError(f"argument {name!r}: {command} has no such setting", "register the group that has it")
        origin = Origin(kind="python", label=f"argument {name!r}")
        givens.append(Given(field=target.field, value=value, origin=origin, entry=target.entry))
    return merge(groups, [givens])
