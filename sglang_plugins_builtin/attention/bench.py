"""Times attention backends on one shape and compares each with exact attention. Heavy: imports torch."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import asdict, frozen

from sglang_core import (
    AttentionBackend,
    AttentionNeed,
    ConfigError,
    Origin,
    PluginManager,
    Settings,
    SglangError,
    attention_fits,
    denoiser_tokens,
    plan_run,
)

from .reference import plain_attention

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
#: Small enough for a second on two CPU cores, and what a GPU needs to be busy.
_TOKENS = {"cpu": 1024}
_TOKENS_ELSEWHERE = 8192
_HEADS, _HEAD_DIM = {"cpu": 4}, 128
_HEADS_ELSEWHERE = 24
_PLANNED = ("model_path", "width", "height", "num_frames", "device", "precision")
#: Rows of queries that are compared: exact attention keeps all scores in memory.
_COMPARED_ROWS = 256


@frozen(kw_only=True)
class Shape:
    """What is timed: self-attention of one batch."""

    device: str
    precision: str
    tokens: int
    heads: int
    head_dim: int
    #: Where the numbers come from.
    source: str

    def describe(self) -> str:
        """Return the shape in words."""
        numbers = f"{self.tokens} tokens, {self.heads} heads of {self.head_dim}"
        return f"{numbers}, {self.precision} on {self.device} ({self.source})"

    def to_json(self) -> dict[str, Any]:
        """Return the shape as JSON values."""
        return asdict(self)


@frozen(kw_only=True)
class Timing:
    """What one backend took, or why it could not be timed."""

    name: str
    median_ms: float | None = None
    relative_l2: float | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the timing as JSON values."""
        return asdict(self)


def shape_of(manager: PluginManager, options: Mapping[str, Any]) -> Shape:
    """Return the shape that the options of the command ask for.

    :raises SglangError: if the model is not found or has no denoiser whose heads are known.
    """
    own = {name: options[name] for name in ("tokens", "heads", "head_dim")}
    if options["model_path"] is not None:
        return _override(_shape_of_model(manager, options), own)
    for name in ("width", "height", "num_frames"):
        if options[name] is not None:
            raise ConfigError(f"--{name.replace('_', '-')} needs a model whose shapes it changes", "add --model-path")
    device = options["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    shape = Shape(
        device=device,
        precision=options["precision"] or "bf16",
        tokens=_TOKENS.get(device, _TOKENS_ELSEWHERE),
        heads=_HEADS.get(device, _HEADS_ELSEWHERE),
        head_dim=_HEAD_DIM,
        source="no model",
    )
    return _override(shape, own)


def _override(shape: Shape, own: Mapping[str, int | None]) -> Shape:
    values = {**asdict(shape), **{name: value for name, value in own.items() if value is not None}}
    return Shape(**values)


def _shape_of_model(manager: PluginManager, options: Mapping[str, Any]) -> Shape:
    given = {name: options[name] for name in _PLANNED if options[name] is not None}
    origins = {name: Origin(kind="flag", label=f"--{name.replace('_', '-')}") for name in given}
    settings = Settings(values={}, groups=manager.options.for_command("explain")).replace_from(origins, given)
    plan = plan_run(manager, settings, may_lack_inputs=True).plan
    component = next((name for name in plan.components if name.startswith("transformer")), None)
    config = plan.model.components[component].config if component else {}
    heads, head_dim = config.get("num_attention_heads"), config.get("attention_head_dim")
    if component is None or type(heads) is not int or type(head_dim) is not int:
        raise ConfigError(
            f"--model-path: the heads of {plan.model.reference} are not known", "give --tokens --heads --head-dim"
        )
    request = plan.requests[0]
    width, height, frames = request.width or 1024, request.height or 1024, request.num_frames or 1
    return Shape(
        device=plan.device.value,
        precision=plan.components[component].precision.value or "fp32",
        tokens=denoiser_tokens(plan.model, component, width, height, frames),
        heads=heads,
        head_dim=head_dim,
        source=f"{component} of {plan.model.reference} at {width} x {height}" + (f" x {frames}" if frames > 1 else ""),
    )


def bench(backends: Iterable[AttentionBackend], shape: Shape, repeats: int) -> list[Timing]:
    """Time every backend on the same tensors; those that cannot run say why."""
    generator = torch.Generator(shape.device).manual_seed(0)
    size = (1, shape.tokens, shape.heads, shape.head_dim)
    tensors = [
        torch.randn(size, generator=generator, device=shape.device).to(_DTYPES[shape.precision]) for _ in range(3)
    ]
    query, key, value = tensors
    exact, _ = plain_attention(query[:, :_COMPARED_ROWS].float(), key.float(), value.float(), None, None, False)
    return [_timing(backend, shape, tensors, exact, repeats) for backend in backends]


def _timing(
    backend: AttentionBackend, shape: Shape, tensors: list[torch.Tensor], exact: torch.Tensor, repeats: int
) -> Timing:
    need = AttentionNeed(head_dim=shape.head_dim, num_heads=shape.heads)
    answer = backend.probe()
    answer = attention_fits(backend, need, shape.device, shape.precision) if answer.is_available else answer
    if not answer.is_available:
        return Timing(name=backend.name, problem=answer.reason)
    try:
        attention = backend.create({})
        result = attention.attend(*tensors)  # the first call compiles, chooses and allocates
        median = statistics.median(_seconds(lambda: attention.attend(*tensors), shape.device) for _ in range(repeats))
    except SglangError as error:
        return Timing(name=backend.name, problem=error.problem)
    except Exception as error:  # a foreign kernel
        return Timing(name=backend.name, problem=f"it failed: {' '.join(str(error).split())[:200]}")
    difference = result[:, :_COMPARED_ROWS].float() - exact
    return Timing(name=backend.name, median_ms=median * 1000, relative_l2=float(difference.norm() / exact.norm()))


def _seconds(call: Callable[[], object], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()
