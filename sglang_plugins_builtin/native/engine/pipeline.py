"""A family's stages as a pipeline the host can run."""

import gc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sglang_core import (
    ExecutionPlan,
    GeneratedMedia,
    GenerationRequest,
    MemoryOf,
    RequestError,
    SglangError,
    StepControl,
    is_out_of_memory,
)

from ..layers.packing import pack_module
from .changing import WeightPlace, find_weight
from .memory import run_out_of_memory
from .previews import PictureStage
from .residency import Residency
from .stages import BatchStage, OptionalStage, RememberingStage, Stage
from .state import RunState


class StagedPipeline:
    """Stages run one after the other on one state.

    ``stages`` is a plain list: a pipeline transform may replace, wrap, add or remove entries.
    """

    def __init__(
        self, plan: ExecutionPlan, stages: Iterable[Stage], components: Mapping[str, Any], residency: Residency
    ) -> None:
        self.stages: list[Stage] = list(stages)
        self.residency = residency
        #: Estimates other requests, to say which would have fitted; the backend sets it.
        self.memory_of: MemoryOf | None = None
        #: Everything of a run is in its states. But a run in the middle of another would take components away from it.
        self.can_interleave = residency.is_all_resident
        self._plan = plan
        self._components = dict(components)
        self._is_packed = False

    @property
    def components(self) -> Mapping[str, Any]:
        """Return the components by name."""
        return self._components

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output.

        :raises RequestError: if a stage fails on this request.
        :raises OutOfDeviceMemoryError: if the request does not fit into memory.
        """
        (media,) = self.run_batch([request], control)
        return media

    def run_batch(self, requests: Sequence[GenerationRequest], control: StepControl) -> Sequence[GeneratedMedia]:
        """Make one output for each request, in their order; the requests differ in prompts and seed only.

        Steps need working memory for each of them. Where that is too much, nothing is made; each may still fit alone.

        :raises RequestError: if a stage fails on these requests.
        :raises OutOfDeviceMemoryError: if the requests do not fit into memory together.
        """
        self._pack()
        picture = next((stage.picture for stage in self.stages if isinstance(stage, PictureStage)), None)
        states = [
            RunState(request=request, generator=self._generator(request), picture=picture) for request in requests
        ]
        try:
            with torch.inference_mode():
                for stage in self.stages:
                    if isinstance(stage, OptionalStage) and not stage.is_needed(requests[0]):
                        continue
                    with control.stage(stage.name, stage.num_steps(states[0])):
                        _run_stage(stage, states, control)
        except SglangError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise run_out_of_memory(error, self._plan, requests, self.memory_of) from error
            raise
        finally:
            self.residency.release()
        media = [state.media for state in states if state.media is not None]
        if len(media) < len(states):
            names = ", ".join(stage.name for stage in self.stages)
            raise RequestError(f"none of the stages ({names}) made a picture or clip", "end with a decoding stage")
        return media

    def read_weight(self, component: str, name: str) -> torch.Tensor | None:
        """Return a weight by its name in the model's files, ``None`` if no run uses it.

        :raises UnavailableError: if its layer computes with something else.
        """
        place = self._place(component, name)
        return None if place is None else place.read()

    def write_weight(self, component: str, name: str, value: torch.Tensor) -> None:
        """Have the next run compute with other values of a weight."""
        place = self._place(component, name)
        assert place is not None, "what was read can be written"
        place.write(value)
        if not component.startswith("transformer"):  # what denoises is remembered by nobody
            for stage in self.stages:
                if isinstance(stage, RememberingStage):
                    stage.forget()

    def _place(self, component: str, name: str) -> WeightPlace | None:
        if self.residency.is_in_use:  # in the middle of a run: what is on the device are copies
            self.residency.release()
        return find_weight(self._components[component], name)

    def _pack(self) -> None:
        """Bring the weights into the form that computes fastest: at the first run, when nobody needs their names."""
        if self._is_packed or self._plan.device.value != "cpu":
            return
        self._is_packed = True
        for component in self._components.values():
            if isinstance(component, nn.Module):
                pack_module(component)

    def _generator(self, request: GenerationRequest) -> torch.Generator:
        return torch.Generator(self._plan.device.value).manual_seed(request.seed)

    def close(self) -> None:
        """Free the weights and the device's memory."""
        self.stages.clear()
        self._components.clear()
        self.residency.close()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _run_stage(stage: Stage, states: Sequence[RunState], control: StepControl) -> None:
    if isinstance(stage, BatchStage):
        stage.run_batch(states, control)
        return
    for state in states:
        stage.run(state, control)
