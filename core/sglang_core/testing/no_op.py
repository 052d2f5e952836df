"""An execution backend whose steps cost nothing: it loads no weights and draws noise made of the request."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ..backends import CallDescription, ExecutionBackend, LoadedPipeline
from ..engine.control import StepControl
from ..hookspecs import hookimpl
from ..models import ModelDescription
from ..options import Settings
from ..planning_types import AttentionPlan, Choice, ExecutionPlan
from ..registry import Availability
from ..requests import GeneratedMedia, GenerationRequest, MediaKind

_PARAMETERS: Mapping[str, Any] = {
    "prompt": None,
    "negative_prompt": None,
    "width": 16,
    "height": 16,
    "num_inference_steps": 4,
    "guidance_scale": 1.0,
}


def _no_op_call(kind: MediaKind) -> CallDescription:
    clip = {"num_frames": 5, "fps": 8} if kind == "video" else {}
    frames_step = 4 if kind == "video" else None
    return CallDescription(kind=kind, parameters={**_PARAMETERS, **clip}, multiple_of=8, frames_step=frames_step)


@frozen(kw_only=True)
class NoOpBackend:
    """Runs every model, in no time.

    ``fails_at`` names a stage (``load``, ``encode``, ``denoise``, ``decode``) in which ``error`` is raised.
    ``on_step`` is called with the number of each denoising step before it is reported: the place for a test to cancel.
    """

    name: str = "no_op"
    order: int = 1
    honours: Collection[str] = ()
    kind: MediaKind = "image"
    call: CallDescription = field()
    availability: Availability = Availability.yes()
    supported: Availability = Availability.yes()
    fails_at: str | None = None
    error: Exception = field(factory=lambda: RuntimeError("no_op was told to fail"))
    on_step: Callable[[int], None] | None = None
    step_s: float = 0.0
    #: ``float32`` makes frames of NaN, which no engine may accept.
    frames_dtype: str = "uint8"

    @call.default
    def _call_of_kind(self) -> CallDescription:
        return _no_op_call(self.kind)

    def probe(self) -> Availability:
        """Return what the test wants."""
        return self.availability

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Return what the test wants."""
        return self.supported

    def choose_attention(
        self, model: ModelDescription, settings: Settings, device: str, precisions: Mapping[str, str | None]
    ) -> AttentionPlan:
        """Return that there is none."""
        return AttentionPlan(default=Choice(value="none", reason="nothing attends", is_automatic=True))

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Return what the test wants."""
        return self.call

    def load(self, plan: ExecutionPlan, folder: Path, control: StepControl) -> LoadedPipeline:
        """Report each component of the plan as loaded."""
        with control.stage("load", total=len(plan.components)):
            self.fail_in("load")
            for index, name in enumerate(plan.components, start=1):
                if not (folder / name).is_dir():
                    raise FileNotFoundError(f"{folder / name} was not fetched")
                control.step("load", index, len(plan.components))
        return NoOpPipeline(self, plan)

    def fail_in(self, stage: str) -> None:
        """Raise the error of a test if it asked for one in this stage."""
        if self.fails_at == stage:
            raise self.error


class NoOpPipeline:
    """What :class:`NoOpBackend` loads. ``is_closed`` tells a test whether it was freed."""

    def __init__(self, backend: NoOpBackend, plan: ExecutionPlan) -> None:
        self.components: dict[str, Any] = dict.fromkeys(plan.components, "no weights")
        self.is_closed = False
        self._backend = backend

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Go through the stages of a real pipeline."""
        backend = self._backend
        with control.stage("encode"):
            backend.fail_in("encode")
        total = request.num_inference_steps or 1
        with control.stage("denoise", total=total):
            for index in range(1, total + 1):
                time.sleep(backend.step_s)
                backend.fail_in("denoise")
                if backend.on_step is not None:
                    backend.on_step(index)
                control.step("denoise", index, total)
        with control.stage("decode"):
            backend.fail_in("decode")
            return self._draw(request)

    def _draw(self, request: GenerationRequest) -> GeneratedMedia:
        import numpy  # only where frames are made

        shape = (request.num_frames or 1, request.height or 16, request.width or 16, 3)
        if self._backend.frames_dtype != "uint8":
            frames = numpy.full(shape, numpy.nan, dtype=self._backend.frames_dtype)
        else:
            described = json.dumps(request.to_json(), sort_keys=True, default=str)
            seed = int.from_bytes(hashlib.sha256(described.encode()).digest()[:8], "big")
            frames = numpy.random.default_rng(seed).integers(0, 256, shape, dtype=numpy.uint8)
        return GeneratedMedia(kind=self._backend.kind, frames=frames, fps=request.fps)

    def close(self) -> None:
        """Remember that it was freed."""
        self.is_closed = True


class _NoOpPlugin:
    def __init__(self, backend: NoOpBackend) -> None:
        self.backend = backend

    @hookimpl
    def sglang_register_execution_backends(self) -> list[ExecutionBackend]:
        return [self.backend]


def no_op_plugin(**settings: Any) -> object:
    """Return a plugin that brings one :class:`NoOpBackend` with these settings."""
    return _NoOpPlugin(NoOpBackend(**settings))
