"""What an execution backend and a pipeline transform are to the host."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    from pathlib import Path

    from .engine.control import StepControl
    from .models import ModelDescription
    from .options import Settings
    from .planning_types import AttentionPlan, ExecutionPlan
    from .registry import Availability
    from .requests import GeneratedMedia, GenerationRequest, MediaKind
    from .server.context import Server


@frozen(kw_only=True)
class CallDescription:
    """What a pipeline's call takes and makes, known before it is loaded.

    ``parameters`` maps each request field and extra argument the call takes to its default (``None``: the pipeline
    decides while running); an image is called ``image`` here, and a mask ``mask_image``. ``multiple_of`` is the pixel
    grid of width and height, ``frames_step`` the ``k`` of "frames must be ``k * n + 1``".
    """

    kind: MediaKind
    parameters: Mapping[str, Any]
    required: Collection[str] = ()
    takes_any: bool = False
    multiple_of: int = 1
    frames_step: int | None = None
    #: Fewer denoising steps are refused.
    min_steps: int = 1
    #: How many images it starts from at most, where it takes images; ``None``: any number, or not known.
    max_images: int | None = None
    #: Spelling of a request field in the call, where it differs: ``{"guidance_scale": "true_cfg_scale"}``.
    spellings: Mapping[str, str] = field(factory=dict)
    #: The pipeline class that is called, where it is another one than the model's.
    pipeline_class: str | None = None
    #: Where the result has the shape of the image unless a size is given: its pixels at most.
    image_area: int | None = None
    #: How the loaded model is called with an image, and with an image and a mask, where this call does not take them.
    with_image: CallDescription | None = None
    with_mask: CallDescription | None = None

    @property
    def takes_image(self) -> bool:
        """Say whether the model can start from an image."""
        return "image" in self.parameters or "image" in self.required or self.with_image is not None

    @property
    def takes_mask(self) -> bool:
        """Say whether the model can paint inside of a mask and leave the rest of an image."""
        return "mask_image" in self.parameters or self.with_mask is not None

    def for_inputs(self, *, image: bool, mask: bool) -> CallDescription | None:
        """Return the call for a request with or without an image and a mask; ``None`` where there is none."""
        if mask and "mask_image" not in self.parameters:
            return self.with_mask
        if image and "image" not in self.parameters and not mask:
            return self.with_image
        return self

    def for_request(self, request: GenerationRequest) -> CallDescription:
        """Return the call for a planned request."""
        call = self.for_inputs(image=bool(request.image_path), mask=request.mask_path is not None)
        assert call is not None, "planning refuses inputs that a model does not take"
        return call


class LoadedPipeline(Protocol):
    """A pipeline with its weights in memory."""

    @property
    def components(self) -> Mapping[str, Any]:
        """The components by name, for transforms."""

    def run(self, request: GenerationRequest, control: StepControl) -> GeneratedMedia:
        """Make one output.

        Every stage runs inside ``control.stage(...)`` and calls ``control.step(...)`` after each step: that is where
        cancel, deadline, progress and preview happen. A pipeline never catches what ``control`` raises.
        """

    def close(self) -> None:
        """Free the weights; called once."""


@runtime_checkable
class BatchingPipeline(Protocol):
    """What a :class:`LoadedPipeline` has as well if it can run several requests together."""

    def run_batch(self, requests: Sequence[GenerationRequest], control: StepControl) -> Sequence[GeneratedMedia]:
        """Make one output for each request, in their order, each equal to what :meth:`LoadedPipeline.run` makes of it.

        The requests differ in prompt, negative prompt and seed only, and start from no images. Stages and steps are
        those of the whole batch; ``control.preview`` takes the place of a request in the batch.
        """


@runtime_checkable
class InterleavingPipeline(Protocol):
    """What a :class:`LoadedPipeline` has as well if another run may take place, whole, in the middle of one.

    That happens wherever a run calls its control (``stage``, ``step``, ``check``). So nothing of a run may be kept in
    the pipeline or its components: what the run in the middle does there must not change the result of the other.

    ``can_interleave`` is read once the model is loaded. A transform that keeps something of a run in the pipeline, or
    whose work on one run changes the arithmetic of the next, sets it to false.
    """

    can_interleave: bool


@runtime_checkable
class ChangeablePipeline(Protocol):
    """What a :class:`LoadedPipeline` has as well if its weights can be changed between two runs.

    ``name`` is that of a weight in the model's files (``transformer_blocks.0.attn.to_q.weight``), however the pipeline
    keeps it.
    """

    def read_weight(self, component: str, name: str) -> Any:
        """Return a weight of a component as it is now, a ``torch.Tensor`` on the device where it lives between runs.

        Its values stay as they are when the weight is written. ``None`` if no run uses the weight.

        :raises UnavailableError: if the component's weights can not be changed as it is loaded.
        """

    def write_weight(self, component: str, name: str, value: Any) -> None:
        """Give a weight, which :meth:`read_weight` has returned, other values of the same shape, dtype and device.

        The pipeline keeps ``value`` and does not change it. The next run computes with it.
        """


class ExecutionBackend(Protocol):
    """Runs models of some kind."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """``--backend auto`` asks backends in ascending order."""

    @property
    def honours(self) -> Collection[str]:
        """The names of the execution settings this backend acts on; the host refuses the others by name."""

    def probe(self) -> Availability:
        """Say whether this backend can work here, without importing anything heavy."""

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether it can run this model with these settings, without importing anything heavy."""

    def choose_attention(
        self, model: ModelDescription, settings: Settings, device: str, precisions: Mapping[str, str | None]
    ) -> AttentionPlan:
        """Return the attention backends the plan names, and why; nothing heavy is imported.

        :param precisions: precision by component, ``None`` for those without weights.
        :raises SglangError: if what the settings ask for cannot serve this model here.
        """

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a call of this model takes, without importing anything heavy."""

    def load(self, plan: ExecutionPlan, folder: Path, control: StepControl) -> LoadedPipeline:
        """Read the weights from ``folder`` as the plan says; each component is a step of the stage ``load``.

        :raises ModelLoadError: if the files cannot be used.
        """


class PipelineTransform(Protocol):
    """Changes a loaded pipeline before its first run. Transforms are applied in ascending ``order``."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """Its place among its kind: lower comes first."""

    def probe(self) -> Availability:
        """Say whether this transform can work here."""

    def wanted(self, plan: ExecutionPlan) -> str | None:
        """Return why the plan includes this transform (``"--enable-torch-compile is set"``), or ``None``.

        Called while planning, from the plan as far as it is made, without anything heavy imported.

        :raises SglangError: if it is asked for and can not be done.
        """

    def apply(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Change the pipeline's components in place."""


@runtime_checkable
class FollowingTransform(Protocol):
    """What a :class:`PipelineTransform` has as well if it follows the settings of each run, not only those of loading.

    Its settings are in groups with ``is_per_request``, and ``wanted`` is asked for every request.
    """

    def state_of(self, plan: ExecutionPlan) -> Hashable:
        """Return what is equal for two plans that ask for the same state of the pipeline."""

    def follow(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Bring the pipeline into the state that a plan asks for, from whatever state it is in.

        Called before every run and when a server is told so, never while a run computes; often there is nothing to do.

        :raises SglangError: if that can not be; the pipeline is as before then.
        """


@runtime_checkable
class TellingTransform(Protocol):
    """What a :class:`PipelineTransform` has as well if it has more to say in receipts than its name."""

    def details(self, plan: ExecutionPlan) -> Any:
        """Return JSON values for the receipt of a run that was made with this transform."""


@runtime_checkable
class ControllableTransform(Protocol):
    """What a :class:`PipelineTransform` has as well if clients of a server can tell it something."""

    async def control(self, server: Server, action: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what a client asks for, and return JSON values for the answer.

        Called in the event loop of the server, where nothing of the model is. Settings that requests are to follow from
        now on go to :meth:`Server.follow`.

        :param action: the transform's own word.
        :raises SglangError: if that can not be; everything is as before then.
        """
