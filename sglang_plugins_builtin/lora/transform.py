"""The transform: adapters in the weights, as the settings of each run say."""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sglang_core import Availability, ConfigError, SglangError, UnavailableError

from .config import LoraOptions

if TYPE_CHECKING:
    from sglang_core import ExecutionPlan, LoadedPipeline, PluginManager, Server

    from .adapters import ActiveAdapter, Adapter
    from .control import LoraControl
    from .holding import Fitted, Held

_INSTALL = 'pip install "sglang-plugins[native]"'


class LoraTransform:
    """Merges LoRA adapters (arXiv:2106.09685) into the weights of the denoisers."""

    name = "lora"
    order = 100  # first: what others make of the weights, they make of the changed ones

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._fitted: dict[Adapter, Fitted] = {}
        self._held: WeakKeyDictionary[LoadedPipeline, Held] = WeakKeyDictionary()
        self._control: LoraControl | None = None

    def probe(self) -> Availability:
        """Say whether torch and safetensors are there."""
        missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
        return Availability.no(f"{', '.join(missing)} not installed", _INSTALL) if missing else Availability.yes()

    def wanted(self, plan: ExecutionPlan) -> str | None:
        """Name the adapters that act; their headers are read and compared with the model.

        :raises SglangError: if one can not be found or does not fit.
        """
        active = self._active(plan)
        for each in active:
            self._fit(each.adapter, plan)
        return "; ".join(_described(each) for each in active) or None

    def apply(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Merge the adapters that act."""
        self.follow(pipeline, plan)

    def state_of(self, plan: ExecutionPlan) -> Hashable:
        """Return the adapters that act, with their strengths."""
        return tuple((each.adapter, tuple(sorted(each.strengths.items()))) for each in self._active(plan))

    def follow(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Have exactly the adapters of a plan in the weights of a pipeline.

        :raises SglangError: if an adapter can not be had, or the weights can not be changed.
        """
        active, held = self._active(plan), self._held.get(pipeline)
        state = self.state_of(plan)
        if held.state == state if held is not None else not active:
            return
        from sglang_core import ChangeablePipeline  # only where something is loaded

        if not isinstance(pipeline, ChangeablePipeline):
            problem = f"the backend {plan.backend.value} can not change weights, so it takes no adapters"
            raise UnavailableError(problem, "use --backend sglang or diffusers, or leave the adapters out")
        from .adapters import known_adapters  # as below
        from .holding import Held
        from .merging import MergedWeights, Part, load_adapter  # torch: the pipeline has it loaded

        known = known_adapters(plan.settings.of(LoraOptions)).values()
        loaded = {name: one for name, one in (held.loaded if held is not None else {}).items() if name in known}
        for each in active:
            if each.adapter not in loaded:
                loaded[each.adapter] = load_adapter(self._fit(each.adapter, plan).file.fetch())
        weights = held.weights if held is not None else MergedWeights()
        parts = [Part(each, loaded[each.adapter], self._fit(each.adapter, plan).fit) for each in active]
        weights.bring(pipeline, parts)
        self._held[pipeline] = Held(state, weights, loaded)

    def details(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:
        """Return nickname, strengths, file and, once it is loaded, SHA-256 of each adapter that acts."""
        loaded = {adapter: one for held in self._held.values() for adapter, one in held.loaded.items()}
        found = []
        for each in self._active(plan):
            file = self._fit(each.adapter, plan).file
            entry: dict[str, Any] = {
                "nickname": each.adapter.nickname,
                "strengths": dict(each.strengths),
                "file": file.header.path,
            }
            if file.source.revision is not None:
                entry["revision"] = file.source.revision
            if each.adapter in loaded:
                entry["sha256"] = loaded[each.adapter].sha256
            found.append(entry)
        return found

    async def control(self, server: Server, action: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what a client of a server asks for: ``set``, ``merge``, ``unmerge`` or ``list``.

        :raises SglangError: if that can not be.
        """
        if self._control is None:
            from .control import LoraControl  # most processes have no clients

            self._control = LoraControl()
        return await self._control.act(server, action, values)

    def _active(self, plan: ExecutionPlan) -> tuple[ActiveAdapter, ...]:
        options = plan.settings.of(LoraOptions)
        if options == _NONE:
            return ()
        from .adapters import active_adapters, denoisers_of  # only where there are adapters

        return active_adapters(options, denoisers_of(plan.model))

    def _fit(self, adapter: Adapter, plan: ExecutionPlan) -> Fitted:
        fitted = self._fitted.get(adapter)
        if fitted is None or fitted.model is not plan.model:
            from .fitting import fit_adapter  # as above
            from .holding import Fitted
            from .sources import open_adapter

            try:
                file = open_adapter(self._manager, adapter, plan.settings)
            except ConfigError:
                raise
            except SglangError as error:  # a resolver's, in the words of models
                raise ConfigError(f"--lora-path {adapter.path}: {error.problem}", error.remedy) from error
            fitted = self._fitted[adapter] = Fitted(file, plan.model, fit_adapter(adapter, file, plan.model))
        return fitted


_NONE = LoraOptions()


def _described(active: ActiveAdapter) -> str:
    adapter, strengths = active.adapter, active.strengths
    if len(set(strengths.values())) == 1:
        said = f"{next(iter(strengths.values())):g} in {' and '.join(strengths)}"
    else:
        said = ", ".join(f"{strength:g} in {name}" for name, strength in strengths.items())
    return f"{adapter.nickname}: {adapter.path}, strength {said}"
