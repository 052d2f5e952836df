"""Runs a plan in this process: load once, then one output at a time."""

from pathlib import Path
from types import TracebackType

from ..backends import LoadedPipeline
from ..errors import ModelLoadError, RequestError
from ..foreign_code import translated
from ..planning_types import ExecutionPlan
from ..plugins import PluginManager
from ..requests import GeneratedMedia, GenerationRequest
from .control import StepControl


class Engine:
    """A loaded pipeline under step control. Use it as a context manager, or call :meth:`close`."""

    def __init__(self, plan: ExecutionPlan, pipeline: LoadedPipeline) -> None:
        self.plan = plan
        self._pipeline: LoadedPipeline | None = pipeline

    @classmethod
    def load(cls, manager: PluginManager, plan: ExecutionPlan, folder: Path, control: StepControl) -> "Engine":
        """Read the weights as the plan says and apply its transforms.

        :raises SglangError: if the model cannot be loaded; what was loaded so far is freed.
        """
        backend = manager.execution_backends.get(plan.backend.value)
        remedy = "check the model's files"
        with translated(f"loading {plan.model.reference}", ModelLoadError, remedy):
            pipeline = backend.load(plan, folder, control)
        try:
            for choice in plan.transforms:
                transform = manager.pipeline_transforms.get(choice.value)
                remedy = f"leave {choice.value} out ({choice.reason})"
                with control.stage(choice.value), translated(choice.value, ModelLoadError, remedy):
                    transform.apply(pipeline, plan)
        except BaseException:
            pipeline.close()
            raise
        return cls(plan, pipeline)

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output.

        :raises RequestCancelledError: if ``control`` was cancelled; the engine stays usable.
        :raises DeadlineExceededError: if the time of ``control`` is over; the engine stays usable.
        :raises RequestError: if the pipeline fails on this request.
        """
        if self._pipeline is None:
            raise RequestError("the engine is closed", "load the model again")
        control.check()
        with translated(f"backend {self.plan.backend.value}", RequestError, "try other settings or another --backend"):
            media = self._pipeline.run(request, control)
            _check_media(media, self.plan)
        return media

    def close(self) -> None:
        """Free the weights. Closing twice does nothing."""
        if self._pipeline is not None:
            pipeline, self._pipeline = self._pipeline, None
            pipeline.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_media(media: GeneratedMedia, plan: ExecutionPlan) -> None:
    shape = media.frames.shape
    if str(media.frames.dtype) != "uint8" or len(shape) != 4 or shape[0] < 1 or shape[3] not in (3, 4):
        raise RequestError(
            f"backend {plan.backend.value} returned frames of shape {tuple(shape)} and type {media.frames.dtype}",
            "report it to the authors of the backend: uint8 (frames, height, width, 3 or 4) is expected",
        )
