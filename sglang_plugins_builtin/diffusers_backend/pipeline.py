"""A loaded diffusers pipeline as the host runs it."""

import gc
import logging
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from sglang_core import (
    CallDescription,
    ExecutionPlan,
    GeneratedMedia,
    GenerationRequest,
    SglangError,
    StepControl,
    UnavailableError,
)

from .arguments import arguments_of
from .failures import run_failure
from .previews import Estimate, Frames, show
from .residency import share_places
from .results import to_media
from .stages import CallStages, StageWatch

logger = logging.getLogger(__name__)


class DiffusersPipeline:
    """A diffusers pipeline with its weights in memory, placed as the plan says."""

    def __init__(self, pipeline: Any, plan: ExecutionPlan) -> None:
        self._pipeline = pipeline
        self._plan = plan
        self._watch = StageWatch(pipeline)
        #: Pipelines on the same components, by class name, made when the first request needs them.
        self._relatives: dict[str, Any] = {}

    @property
    def components(self) -> Mapping[str, Any]:
        """Return the components by name."""
        return dict(self._pipeline.components)

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output, with a generator of its own on the plan's device.

        :raises RequestError: if the pipeline refuses or fails, or makes values that are no picture.
        :raises OutOfDeviceMemoryError: if the request does not fit into memory.
        """
        call = self._plan.call.for_request(request)
        try:
            pipeline = self._pipeline_of(call)
            request, arguments = arguments_of(pipeline, call, request, self._plan.device.value)
            with CallStages(control, lambda estimate: self._show(pipeline, request, estimate)) as stages:
                self._watch.current = stages
                result = pipeline(**arguments)
                return to_media(result, pipeline, self._plan, request)
        except SglangError:
            raise
        except Exception as error:  # a pipeline is foreign code and raises whatever it likes
            logger.debug("%s failed", self._plan.model.pipeline_class, exc_info=True)
            raise run_failure(error, self._plan, request) from error
        finally:
            self._watch.current = None
            self._free_hooks()

    def read_weight(self, component: str, name: str) -> torch.Tensor:
        """Return a weight by its name in the model's files.

        :raises UnavailableError: if the component's layers are streamed, or it does not have the weight under its name.
        """
        return self._weight(component, name).data

    def write_weight(self, component: str, name: str, value: torch.Tensor) -> None:
        """Have the next run compute with other values of a weight."""
        # The parameter stays: whatever brings it to a device knows it by its identity.
        self._weight(component, name).data = value

    def _weight(self, component: str, name: str) -> torch.nn.Parameter:
        plan = self._plan.components.get(component)
        if plan is not None and plan.residency.value == "layerwise-offload":
            problem = f"the weights of {component} can not be changed: its layers are streamed from copies"
            raise UnavailableError(problem, "use --backend sglang, or another residency for it")
        self._free_hooks()
        try:
            return self._pipeline.components[component].get_parameter(name)  # type: ignore[no-any-return]
        except AttributeError as error:
            problem = f"{component} has no weight {name!r} as it is loaded"
            raise UnavailableError(problem, "use --backend sglang, or leave the adapter out") from error

    def close(self) -> None:
        """Free the weights and the device's memory."""
        self._pipeline = self._watch = None  # type: ignore[assignment]  # closed: nothing is used any more
        self._relatives.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _pipeline_of(self, call: CallDescription) -> Any:
        """Return the pipeline of a call: the loaded one, or another on its components."""
        name = call.pipeline_class
        if name is None:
            return self._pipeline
        if name not in self._relatives:
            self._relatives[name] = relative = make_relative(name, self._pipeline)
            share_places(self._pipeline, relative)
            self._watch.watch_bars(relative)
        return self._relatives[name]

    def _show(self, pipeline: Any, request: GenerationRequest, estimate: Estimate) -> Frames | None:
        """Make a picture between two steps; its decoding is no stage of the run."""
        current, self._watch.current = self._watch.current, None
        try:
            return show(pipeline, request, estimate)
        finally:
            self._watch.current = current

    def _free_hooks(self) -> None:
        """Send offloaded components home; a call that was stopped has not done it."""
        free = getattr(self._pipeline, "maybe_free_model_hooks", None)
        if free is not None:
            free()


def make_relative(class_name: str, pipeline: Any) -> Any:
    """Return another pipeline of diffusers on the components, and with the configuration, of a loaded one.

    ``from_pipe`` of diffusers is not used: it brings all components to one precision.
    """
    relative = getattr(diffusers, class_name)
    components, options = relative._get_signature_keys(relative)
    given = {name: component for name, component in pipeline.components.items() if name in components}
    config = {name: value for name, value in pipeline.config.items() if name in options}
    return relative(**given, **config)
