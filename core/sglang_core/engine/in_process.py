"""Runs a plan in this process: load once, then one output at a time."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ..backends import (
    BatchingPipeline,
    FollowingTransform,
    InterleavingPipeline,
    LoadedPipeline,
    PipelineTransform,
)
from ..errors import ModelLoadError, RequestError
from ..foreign_code import translated
from ..planning_types import ExecutionPlan
from ..plugins import PluginManager
from ..requests import GeneratedMedia, GenerationRequest
from .control import StepControl


class Engine:
    """A loaded pipeline under step control. Use it as a context manager, or call :meth:`close`."""

    def __init__(
        self, plan: ExecutionPlan, pipeline: LoadedPipeline, transforms: Sequence[PipelineTransform] = ()
    ) -> None:
        self.plan = plan
        self._pipeline: LoadedPipeline | None = pipeline
        self._following = [transform for transform in transforms if isinstance(transform, FollowingTransform)]
        #: The plan whose state the pipeline is in, and how many runs depend on it.
        self._followed = plan
        self._num_runs = 0

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
        return cls(plan, pipeline, sorted(manager.pipeline_transforms, key=lambda transform: transform.order))

    def state_of(self, plan: ExecutionPlan) -> Hashable:
        """Return what is equal for plans that ask for the same state of the pipeline."""
        return tuple(transform.state_of(plan) for transform in self._following)

    @property
    def state(self) -> Hashable:
        """Return the state that the pipeline is in, as :meth:`state_of` tells it."""
        return self.state_of(self._followed)

    def follow(self, plan: ExecutionPlan) -> None:
        """Bring the pipeline into the state that a plan asks for; there may be nothing to do.

        :raises SglangError: if that can not be; the pipeline is as before then.
        """
        if self._pipeline is None:
            raise RequestError("the engine is closed", "load the model again")
        for transform in self._following:
            with translated(type(transform).__name__, RequestError, "look into the log"):
                transform.follow(self._pipeline, plan)
        self._followed = plan

    @contextmanager
    def following(self, plan: ExecutionPlan) -> Iterator[None]:
        """Have the body run in the state that a plan asks for; a run around it finds its own state again."""
        before = self._followed
        self.follow(plan)
        self._num_runs += 1
        try:
            yield
        finally:
            self._num_runs -= 1
            if self._num_runs:
                self.follow(before)

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output.

        :raises RequestCancelledError: if ``control`` was cancelled; the engine stays usable.
        :raises DeadlineExceededError: if the time of ``control`` is over; the engine stays usable.
        :raises RequestError: if the pipeline fails on this request.
        """
        if self._pipeline is None:
            raise RequestError("the engine is closed", "load the model again")
        control.check()
        with translated(f"backend {self.plan.backend.value}", RequestError, "use other settings or another --backend"):
            media = self._pipeline.run(request, control)
            _check_media(media, self.plan)
        return media

    @property
    def can_batch(self) -> bool:
        """Say whether the pipeline runs several requests together."""
        return isinstance(self._pipeline, BatchingPipeline)

    @property
    def can_interleave(self) -> bool:
        """Say whether one run may take place, whole, in the middle of another."""
        return isinstance(self._pipeline, InterleavingPipeline) and self._pipeline.can_interleave

    def run_batch(self, requests: Sequence[GenerationRequest], control: StepControl) -> tuple[GeneratedMedia, ...]:
        """Make one output for each of several requests that differ in prompt, negative prompt and seed only.

        :raises SglangError: as :meth:`run`, for all of them together.
        """
        pipeline = self._pipeline
        if pipeline is None:
            raise RequestError("the engine is closed", "load the model again")
        assert isinstance(pipeline, BatchingPipeline)
        control.check()
        with translated(f"backend {self.plan.backend.value}", RequestError, "use other settings or another --backend"):
            media = tuple(pipeline.run_batch(requests, control))
            for each in media:
                _check_media(each, self.plan)
            if len(media) != len(requests):
                raise RequestError(
                    f"backend {self.plan.backend.value} made {len(media)} outputs of {len(requests)} requests",
                    "report it to the authors of the backend",
                )
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
