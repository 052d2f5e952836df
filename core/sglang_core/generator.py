"""The Python API: a model that is loaded once and used many times.

::

    from sglang_core import Generator

    with Generator.from_pretrained("demo/shapes-image") as generator:
        result = generator.generate(prompt="a red circle on a white background", return_frames=True)
"""

from types import TracebackType
from typing import Any

from .engine.in_process import Engine
from .errors import ConfigError, RequestError
from .events import EventListener, RunPlanned
from .generation import announced, create_control, load_engine, prepare_outputs, run_requests, warn_of
from .options import Settings
from .options.groups import OptionGroup
from .options.host import DEFAULT_MODEL, CallOptions, OutputOptions, RunOptions, SamplingOptions
from .options.settings import Given, Origin, merge
from .options.sources import given_in_environment
from .planning import PlannedModel, plan_run, replan_requests
from .planning_types import ExecutionPlan
from .plugins import PluginManager, create_plugin_manager, plugin_choice_from_environment
from .registry import closest
from .requests import GenerationResult
from .uploads import output_uploads

_PER_CALL = (SamplingOptions, OutputOptions, CallOptions, RunOptions)
_COMMAND = "generate"


class Generator:
    """A loaded model. Make one with :meth:`from_pretrained`; close it, or use it as a context manager."""

    def __init__(self, manager: PluginManager, settings: Settings, planned: PlannedModel, engine: Engine) -> None:
        self._manager = manager
        self._settings = settings
        self._planned = planned
        self._engine = engine

    @classmethod
    def from_pretrained(
        cls,
        model_path: str = DEFAULT_MODEL,
        *,
        manager: PluginManager | None = None,
        listeners: tuple[EventListener, ...] = (),
        **settings: Any,
    ) -> "Generator":
        """Find, plan and load a model.

        :param model_path: a folder, a hub id, or an embedded model.
        :param manager: the plugins to use; those installed if ``None``.
        :param listeners: told every event of loading.
        :param settings: any setting of ``sglang generate`` by its name, for example ``precision="fp32"``; those of
            sampling and output become the defaults of :meth:`generate`.
        :raises SglangError: if a setting, the model or the machine does not fit.
        """
        manager = manager or _installed_plugins()
        groups = manager.options.for_command(_COMMAND)
        given = _given(manager, groups, {"model_path": model_path, **settings})
        merged = merge(groups, [given, given_in_environment(groups)])
        planned = plan_run(manager, merged, may_lack_inputs=True)
        warn_of(planned.plan.warnings)
        control = create_control(manager, merged, listeners)
        with announced(control, merged):
            control.emit(RunPlanned(run_id=control.run_id, plan=planned.plan))
            engine = load_engine(manager, planned, control)
        return cls(manager, merged, planned, engine)

    def generate(
        self, prompt: str | None = None, *, listeners: tuple[EventListener, ...] = (), **settings: Any
    ) -> GenerationResult:
        """Make outputs with the loaded model.

        :param prompt: what to make; a list of several is good too.
        :param listeners: told every event of this run; what they raise is logged.
        :param settings: settings of sampling, output and run by name (``seed``, ``width``, ``output_path``,
            ``save_output``, ``return_frames``, ``timeout_s``, ...).
        :raises SglangError: if the request does not fit the model, fails, or is stopped.
        """
        if prompt is not None:
            settings["prompt"] = prompt
        settings = self._checked(settings)
        merged = self._settings.replace(**settings)
        plan = replan_requests(self._manager, self._planned.plan, merged)
        prepare_outputs(plan)
        control = create_control(self._manager, merged, listeners)
        with announced(control, merged):
            control.emit(RunPlanned(run_id=control.run_id, plan=plan))
            with output_uploads(self._manager, merged, control) as uploads:
                outputs = run_requests(self._manager, plan, self._engine, control, uploads.add if uploads else None)
                outputs = uploads.finish(outputs) if uploads else outputs
        return GenerationResult(outputs=outputs, duration_s=control.elapsed_s, timings_s=dict(control.timings_s))

    def _checked(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings under their main names; one that needs the model loaded again is refused."""
        groups = [group for group in self._settings.groups if group.settings in _PER_CALL or group.is_per_request]
        fields = {key: field for group in groups for field in group.fields for key in field.keys}
        checked = {}
        for name, value in settings.items():
            if name not in fields:
                loaded_with = {field.name for _, field, _ in self._settings.fields()}
                if name in loaded_with:
                    problem = f"argument {name!r}: the model is loaded with it, it cannot change between requests"
                    raise RequestError(problem, f"give {name} to Generator.from_pretrained")
                raise _unknown(name, tuple(fields))
            checked[fields[name].name] = value
        return checked

    @property
    def plan(self) -> ExecutionPlan:
        """Return the plan that the model was loaded with."""
        return self._planned.plan

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _installed_plugins() -> PluginManager:
    disabled, allowed = plugin_choice_from_environment()
    return create_plugin_manager(disable=disabled, allow=allowed)


def _given(manager: PluginManager, groups: tuple[OptionGroup, ...], settings: dict[str, Any]) -> list[Given]:
    givens = []
    for name, value in settings.items():
        target = manager.options.find(name, groups)
        if target is None:
            raise _unknown(name, manager.options.known_keys(groups))
        origin = Origin(kind="python", label=f"argument {name!r}")
        givens.append(Given(field=target.field, value=value, origin=origin, entry=target.entry))
    return givens


def _unknown(name: str, known: tuple[str, ...]) -> ConfigError:
    close = closest(name, known)
    return ConfigError(f"unknown argument {name!r}", f"use {close!r}" if close else "see the settings of generate")
