"""What an execution backend and a pipeline transform are to the host."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import field, frozen

from .models import ModelDescription
from .registry import Availability
from .requests import GeneratedMedia, GenerationRequest, MediaKind

if TYPE_CHECKING:
    from pathlib import Path

    from .engine.control import StepControl
    from .options import Settings
    from .planning_types import Choice, ExecutionPlan


@frozen(kw_only=True)
class CallDescription:
    """What a pipeline's call takes and makes, known before it is loaded.

    ``parameters`` maps each request field and extra argument the call takes to its default (``None``: the pipeline
    decides while running). ``multiple_of`` is the pixel grid of width and height, ``frames_step`` the ``k`` of
    "frames must be ``k * n + 1``".
    """

    kind: MediaKind
    parameters: Mapping[str, Any]
    required: Collection[str] = ()
    takes_any: bool = False
    multiple_of: int = 1
    frames_step: int | None = None
    #: Spelling of a request field in the call, where it differs: ``{"guidance_scale": "true_cfg_scale"}``.
    spellings: Mapping[str, str] = field(factory=dict)


class LoadedPipeline(Protocol):
    """A pipeline with its weights in memory."""

    @property
    def components(self) -> Mapping[str, Any]:
        """The components by name, for transforms."""

    def run(self, request: GenerationRequest, control: "StepControl") -> GeneratedMedia:
        """Make one output.

        Every stage runs inside ``control.stage(...)`` and calls ``control.step(...)`` after each step: that is where
        cancel, deadline, progress and preview happen. A pipeline never catches what ``control`` raises.
        """

    def close(self) -> None:
        """Free the weights; called once."""


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

    def supports(self, model: ModelDescription, settings: "Settings") -> Availability:
        """Say whether it can run this model with these settings, without importing anything heavy."""

    def choose_attention(self, model: ModelDescription, settings: "Settings", device: str) -> "Choice[str]":
        """Return the attention backend the plan names, and why; nothing heavy is imported."""

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a call of this model takes, without importing anything heavy."""

    def load(self, plan: "ExecutionPlan", folder: "Path", control: "StepControl") -> LoadedPipeline:
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

    def wanted(self, plan: "ExecutionPlan") -> str | None:
        """Return why the plan includes this transform (``"--enable-torch-compile is set"``), or ``None``.

        Called while planning, from the plan as far as it is made, without anything heavy imported.
        """

    def apply(self, pipeline: LoadedPipeline, plan: "ExecutionPlan") -> None:
        """Change the pipeline's components in place."""
