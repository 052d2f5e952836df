"""What a plan is made of. Frozen, and plain values all through, so that it travels between processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import field, frozen

if TYPE_CHECKING:
    from .backends import CallDescription
    from .models import ModelDescription
    from .options import Settings
    from .requests import GenerationRequest, MediaKind

T = TypeVar("T")


@frozen(kw_only=True)
class Choice(Generic[T]):
    """A value of the plan, whether the user or the host chose it, and why."""

    value: T
    reason: str
    is_automatic: bool


@frozen(kw_only=True)
class AttentionPlan:
    """Which attention backend computes what."""

    #: The one of the denoiser, or of the whole pipeline where there is no finer choice.
    default: Choice[str]
    #: By component (``text_encoder``) or component and role (``transformer.self``).
    by_role: Mapping[str, Choice[str]] = field(factory=dict)
    #: Names among the chosen ones whose results differ from exact attention by more than rounding.
    lossy: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@frozen(kw_only=True)
class ComponentPlan:
    """How one component is loaded and where it lives.

    ``precision`` is ``None`` for components without weights. ``num_bytes`` is the size of its weights in that
    precision. ``residency`` is ``resident``, ``component-offload`` or ``layerwise-offload``.
    """

    name: str
    library: str
    class_name: str
    precision: Choice[str | None]
    residency: Choice[str]
    num_bytes: int


@frozen(kw_only=True)
class MemoryEstimate:
    """What the run is expected to take, in bytes: an upper estimate from headers and sizes.

    ``device_weights_bytes`` and ``activations_bytes`` are those of the stage that takes the most.
    """

    weights_bytes: int
    device_weights_bytes: int
    activations_bytes: int
    #: Free memory of the device, where that can be told without a driver.
    available_bytes: int | None
    #: The stage that takes the most, and what each takes, weights included.
    peak_stage: str = "run"
    stage_peak_bytes: Mapping[str, int] = field(factory=dict)

    @property
    def device_peak_bytes(self) -> int:
        """Return the expected peak on the device."""
        return self.device_weights_bytes + self.activations_bytes


@frozen(kw_only=True)
class OutputPlan:
    """Where results go and how they are encoded. ``directory`` is ``None`` when nothing is saved."""

    directory: str | None
    #: One for each request of the plan, in their order, all different; empty when nothing is saved.
    file_names: tuple[str, ...]
    encoder: Choice[str]
    #: In lower case, without the dot.
    extension: str
    compression: int | None
    x264_preset: str
    #: What the user should know about the names, for example that one was changed.
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the file of each request, none when nothing is saved."""
        if self.directory is None:
            return ()
        return tuple(Path(self.directory) / name for name in self.file_names)


@frozen(kw_only=True)
class ExecutionPlan:
    """Everything that is decided before a weight is read."""

    model: ModelDescription
    kind: MediaKind
    backend: Choice[str]
    device: Choice[str]
    attention: Choice[str]
    components: Mapping[str, ComponentPlan]
    #: Names of the transforms in the order they are applied, each with its reason.
    transforms: tuple[Choice[str], ...]
    call: CallDescription
    requests: tuple[GenerationRequest, ...]
    #: Why each value of the first request is what it is, by field name.
    request_reasons: Mapping[str, str]
    output: OutputPlan
    memory: MemoryEstimate
    settings: Settings
    #: The attention backend by component or component and role (``transformer.self``).
    component_attention: Mapping[str, Choice[str]] = field(factory=dict)
    #: The chosen attention backends that are lossy.
    lossy_attention: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, for ``sglang explain --json``."""
        from .planning_report import plan_to_json

        return plan_to_json(self)
