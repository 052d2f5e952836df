"""What a model family is to the host: the models that the native backend can run. Nothing of torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from .attention import Attention, AttentionCapabilities, AttentionNeed
    from .backends import CallDescription, LoadedPipeline
    from .engine.control import StepControl
    from .models import ModelDescription
    from .options import Settings
    from .planning_types import ExecutionPlan
    from .registry import Availability


@frozen
class PlannedAttention:
    """The attention that the plan has chosen for a component and role."""

    attention: Attention
    #: Of its backend, where a family can do one thing in several ways.
    capabilities: AttentionCapabilities


#: Returns what the plan has chosen for a component and role, such as ``"transformer", "cross"``.
AttentionOf = Callable[[str, str], PlannedAttention]


class ModelFamily(Protocol):
    """Models of one architecture, run by the native backend (``--backend sglang``)."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def pipeline_classes(self) -> Collection[str]:
        """The pipeline classes of ``model_index.json`` that it runs; each belongs to one family."""

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether it can run this model with these settings, without importing anything heavy."""

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a call of this model takes, without importing anything heavy."""

    def attention_needs(self, model: ModelDescription) -> Mapping[str, AttentionNeed]:
        """Return what attention has to compute, by component and role: ``{"transformer.self": ...}``.

        A component alone (``"text_encoder"``) stands for all its layers.
        """

    def load(
        self, plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf
    ) -> LoadedPipeline:
        """Read the weights from ``folder`` as the plan says; each component is a step of the stage ``load``.

        :raises ModelLoadError: if the files cannot be used.
        """
