"""Every seam of the host.

A plugin is a module or object with functions of these names, marked with :data:`hookimpl`. The host calls the
``register`` hooks of each plugin exactly once, right after importing it, in every process that builds a plugin
manager. Implementations name only the arguments they use; a later version may add some.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from .attention import AttentionBackend
    from .backends import ExecutionBackend, PipelineTransform
    from .checks import Check
    from .engine.launching import Launcher
    from .events import Event
    from .families import ModelFamily
    from .jobs.store import JobStore
    from .media import MediaEncoder
    from .models import ModelResolver
    from .options import OptionGroup
    from .plugins import PluginManager
    from .server.parts import MiddlewareLayer, RouteGroup
    from .storage import StorageUploader

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
def sglang_register_execution_backends(manager: "PluginManager") -> "Sequence[ExecutionBackend]":
    """Add engines that run models, selectable with ``--backend NAME``.

    Called once per process when the plugin is loaded. ``--backend auto`` takes the first, in ascending
    ``order``, that is available and supports the model. A name claimed twice quarantines the later plugin. If
    the hook raises, the plugin is quarantined.

    :param manager: the plugin manager, for backends built on other seams (model families, attention backends). Its
        registries are still being filled during the call: keep it, and look into them later.
    :returns: the backends, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_model_families() -> "Sequence[ModelFamily]":
    """Add model architectures to the native backend (``--backend sglang``).

    Called once per process when the plugin is loaded. A family answers for the pipeline classes it names; a name or
    a pipeline class claimed twice quarantines the later plugin. If the hook raises, the plugin is quarantined; if a
    family raises while loading or running, that run fails.

    :returns: the families, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_attention_backends() -> "Sequence[AttentionBackend]":
    """Add ways to compute attention, selectable with ``--attention-backend NAME``.

    Called once per process when the plugin is loaded. Without a choice of the user each component gets the first,
    in ascending ``order``, that is available and can compute what the component needs; what a backend declares in
    ``capabilities`` is checked by the host. A name or alias claimed twice quarantines the later plugin. If the hook
    raises, the plugin is quarantined; if a backend raises while computing, the run fails.

    :returns: the backends, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_pipeline_transforms(manager: "PluginManager") -> "Sequence[PipelineTransform]":
    """Add changes of a loaded pipeline, made after its weights are read and before its first run.

    Called once per process when the plugin is loaded. While planning, each transform says whether the plan
    wants it; the wanted ones are applied in ascending ``order``, each in the process that holds the pipeline. A
    transform may also follow the settings of each run, tell more in receipts, or be told something by clients of a
    server: see ``FollowingTransform``, ``TellingTransform`` and ``ControllableTransform``. A name claimed twice
    quarantines the later plugin. If the hook raises, the plugin is quarantined; if a transform raises, loading or the
    run fails.

    :param manager: the plugin manager, for transforms that find something by way of other seams (model resolvers). Its
        registries are still being filled during the call: keep it, and look into them later.
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
def sglang_register_launchers() -> "Sequence[Launcher]":
    """Add ways to start the processes that hold the model of ``sglang serve``, selectable with ``--launcher NAME``.

    Called once per process when the plugin is loaded. A name claimed twice quarantines the later plugin. If the hook
    raises, the plugin is quarantined; if a launcher raises, the server says so and ends.

    :returns: the launchers, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_job_stores() -> "Sequence[JobStore]":
    """Add places to keep jobs, selectable with ``--job-store NAME``.

    Called once per process when the plugin is loaded. A name claimed twice quarantines the later plugin. If the hook
    raises, the plugin is quarantined; if a store raises, the request concerned fails.

    :returns: the kinds of stores, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_storage_uploaders() -> "Sequence[StorageUploader]":
    """Add storages that finished files are uploaded to, selectable with ``--cloud-storage-type NAME``.

    Called once per process when the plugin is loaded. A name claimed twice quarantines the later plugin. If the hook
    raises, the plugin is quarantined; if an uploader raises, the output stays a local file and its record says why.

    :returns: the kinds of storages, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_routes() -> "Sequence[RouteGroup]":
    """Add routes to ``sglang serve``.

    Called once per process when the plugin is loaded; the routes themselves are built once for each server, in
    ascending ``order``. A name claimed twice quarantines the later plugin. If the hook raises, the plugin is
    quarantined; if building the routes raises, the server does not start; an endpoint that raises is answered with
    status 500 and logged.

    :returns: the groups of routes, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_register_middleware() -> "Sequence[MiddlewareLayer]":
    """Add layers around every HTTP request of ``sglang serve``.

    Called once per process when the plugin is loaded; the layers are built once for each server, the lowest ``order``
    outermost. A name claimed twice quarantines the later plugin. If the hook raises, the plugin is quarantined; if
    building a layer raises, the server does not start.

    :returns: the layers, possibly none.

    .. versionadded:: 0.1
    """


@hookspec
def sglang_on_event(event: "Event") -> None:
    """Be told what happens in a run: started, planned, stage, step, saved, ended.

    Called in the thread that runs the engine, between two steps, so it must be quick: its time is the run's
    time. All plugins are told, the last registered first. Results are ignored. A listener that raises is
    reported in a warning once per run and not called again in that run; the run goes on.

    :param event: one of the classes of :mod:`sglang_core.events`, read-only.

    .. versionadded:: 0.1
    """
