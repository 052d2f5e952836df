"""What tensors take while something runs: counted where torch makes them, not where a process shows it."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sglang_core import StepControl
from sglang_plugins_builtin.native.engine import OptionalStage, RunState


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and still alive; ``peak`` is the most there were at once.

    Weights that were there before are not counted, nor is what a kernel takes for itself and gives back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Count the peak from here."""
        self.peak = self._live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # an operator that is made of others is taken apart, so that what lies between is seen
            result = func.decompose(*args, **kwargs) if func.namespace == "aten" else NotImplemented
        if result is NotImplemented:
            result = func(*args, **kwargs)
            given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
            for tensor in _tensors(result):
                if id(tensor.untyped_storage()) not in given:
                    self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def forget(_: Any) -> None:
            del self._known[key]
            self._live -= size

        self._known[key] = weakref.ref(storage, forget)
        self._live += size
        self.peak = max(self.peak, self._live)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in _tensors(each)]
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


def weights_of(components: Any) -> int:
    """Return the bytes of all parameters and buffers of the modules among ``components``, each counted once."""
    tensors = {
        id(tensor): tensor
        for module in components
        if isinstance(module, torch.nn.Module)
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def measured_stages(pipeline: Any, request: Any, *, until: str = "decode") -> dict[str, int]:
    """Return for each stage of a staged pipeline the most bytes that were there in it, weights included.

    :param until: the last stage that runs.
    """
    weights = weights_of(pipeline.components.values())
    meter, peaks = LiveTensors(), {}
    state = RunState(request=request, generator=torch.Generator().manual_seed(request.seed))
    with torch.inference_mode(), meter:
        for stage in pipeline.stages:
            if isinstance(stage, OptionalStage) and not stage.is_needed(request):
                continue
            meter.begin()
            stage.run(state, StepControl())
            peaks[stage.name] = weights + meter.peak
            if stage.name == until:
                break
    return peaks
