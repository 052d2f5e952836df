"""Every seam of the host.

A plugin is a module or object with functions of these names, marked with :data:`hookimpl`. The host calls the
``register`` hooks of each plugin exactly once, right after importing it, in every process that builds a plugin
manager. They take no arguments yet; a later version may add some, and implementations name only those they use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from .backends import ExecutionBackend, PipelineTransform
    from .checks import Check
    from .events import Event
    from .media import MediaEncoder
    from .models import ModelResolver
    from .options import OptionGroup

PROJECT_NAME = "sglang"
ENTRY_POINT_GROUP = "sglang.plugins"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def sglang_register_options() -> "Sequence[OptionGroup]":
    """Add settings.

    Each group is an attrs class and the commands it belongs to; its fields become flags, configuration keys,
    environment variables and documentation. Called once per process when the plugin is loaded. Groups of all
    plugins are put side by side; a flag, key or variable claimed twice quarantines the later plugin, and the
    message names both. If the hook raises, the plugin is quarantined.

    :returns: the groups, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_commands() -> "Sequence[click.Command]":
    """Add subcommands to ``sglang``.

    Called once per process when the plugin is loaded, for ``--help`` too, so building the commands must be
    cheap: what a command needs is imported when it runs. In a command,
    ``click.get_current_context().find_object(PluginManager)`` is the plugin manager. A name claimed twice
    quarantines the later plugin. If the hook raises, the plugin is quarantined.

    :returns: the commands, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_model_resolvers() -> "Sequence[ModelResolver]":
    """Add ways to find a model.

    Called once per process when the plugin is loaded. The resolvers of all plugins are asked in ascending
    ``order`` until one answers; a name claimed twice quarantines the later plugin. If the hook raises, the
    plugin is quarantined; if a resolver raises an ``SglangError`` the command ends with it.

    :returns: the resolvers, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_execution_backends() -> "Sequence[ExecutionBackend]":
    """Add engines that run models, selectable with ``--backend NAME``.

    Called once per process when the plugin is loaded. ``--backend auto`` takes the first, in ascending
    ``order``, that is available and supports the model. A name claimed twice quarantines the later plugin. If
    the hook raises, the plugin is quarantined.

    :returns: the backends, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_pipeline_transforms() -> "Sequence[PipelineTransform]":
    """Add changes of a loaded pipeline, made after its weights are read and before its first run.

    Called once per process when the plugin is loaded. While planning, each transform says whether the plan
    wants it; the wanted ones are applied in ascending ``order``, each in the process that holds the pipeline. A
    name claimed twice quarantines the later plugin. If the hook raises, the plugin is quarantined; if a
    transform raises, loading fails.

    :returns: the transforms, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_media_encoders() -> "Sequence[MediaEncoder]":
    """Add file formats for results, chosen by the extension of the output file.

    Called once per process when the plugin is loaded. An extension claimed twice quarantines the later plugin.
    If the hook raises, the plugin is quarantined; if an encoder raises while encoding, the output fails and no
    file appears.

    :returns: the encoders, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_checks() -> "Sequence[Check]":
    """Add questions to ``sglang doctor``.

    Called once per process when the plugin is loaded; the checks run only in ``sglang doctor``, in the order of
    the plugins. A name claimed twice quarantines the later plugin. If the hook raises, the plugin is
    quarantined; a check that raises is shown as a problem.

    :returns: the checks, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_on_event(event: "Event") -> None:
    """Be told what happens in a run: started, stage, step, saved, ended.

    Called in the thread that runs the engine, between two steps, so it must be quick: its time is the run's
    time. All plugins are told, the last registered first. Results are ignored. A listener that raises is
    reported in a warning once per run and not called again in that run; the run goes on.

    :param event: one of the classes of :mod:`sglang_core.events`, read-only.

    .. versionadded:: 0.1
    """
