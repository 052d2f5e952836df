"""A loaded diffusers pipeline as the host runs it."""

import gc
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch

from sglang_core import ExecutionPlan, GeneratedMedia, GenerationRequest, RequestError, SglangError, StepControl

from .calls import OWN_ARGUMENTS
from .failures import run_failure
from .images import load_images
from .results import to_media
from .stages import CallStages, StageWatch

logger = logging.getLogger(__name__)

#: Request fields that are passed as they are, under the name the call has for them.
_PASSED_FIELDS = (
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "num_frames",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
)


class DiffusersPipeline:
    """A diffusers pipeline with its weights in memory, placed as the plan says."""

    def __init__(self, pipeline: Any, plan: ExecutionPlan) -> None:
        self._pipeline = pipeline
        self._plan = plan
        self._watch = StageWatch(pipeline)
        signature = inspect.signature(type(pipeline).__call__).parameters
        self._parameters = [name for name in signature if name != "self"]

    @property
    def components(self) -> Mapping[str, Any]:
        """Return the components by name."""
        return dict(self._pipeline.components)

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output, with a generator of its own on the plan's device.

        :raises RequestError: if the pipeline refuses or fails, or makes values that are no picture.
        :raises OutOfDeviceMemoryError: if the request does not fit into memory.
        """
        arguments = self._arguments(request)
        try:
            with CallStages(control) as stages:
                self._watch.current = stages
                result = self._pipeline(**arguments)
                return to_media(result, self._pipeline, self._plan, request)
        except SglangError:
            raise
        except Exception as error:  # a pipeline is foreign code and raises whatever it likes
            logger.debug("%s failed", self._plan.model.pipeline_class, exc_info=True)
            raise run_failure(error, self._plan) from error
        finally:
            self._watch.current = None
            self._free_hooks()

    def close(self) -> None:
        """Free the weights and the device's memory."""
        self._pipeline = self._watch = None  # type: ignore[assignment]  # closed: nothing is used any more
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _free_hooks(self) -> None:
        """Send offloaded components home; a call that was stopped has not done it."""
        free = getattr(self._pipeline, "maybe_free_model_hooks", None)
        if free is not None:
            free()

    def _arguments(self, request: GenerationRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        spellings = self._plan.call.spellings
        for field in _PASSED_FIELDS:
            value, name = getattr(request, field), spellings.get(field, field)
            if value is not None and self._takes(name):
                arguments[name] = value
        own = sorted(OWN_ARGUMENTS & set(request.extra))
        if own:
            raise RequestError(
                f"{', '.join(own)} can not be given in diffusers_kwargs: the host passes it",
                "leave it out; for several outputs use --num-outputs-per-prompt, for another seed --seed",
            )
        arguments.update(request.extra)
        if request.image_path:
            images = load_images(request.image_path)
            arguments["image"] = images[0] if len(images) == 1 else images
        if "output_type" in self._parameters:
            arguments["output_type"] = "np"
        if self._takes("generator"):
            arguments["generator"] = torch.Generator(self._plan.device.value).manual_seed(request.seed)
        else:
            torch.manual_seed(request.seed)
        return arguments

    def _takes(self, name: str) -> bool:
        return name in self._parameters or (self._plan.call.takes_any and name != "fps")
