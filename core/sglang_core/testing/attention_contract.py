"""What every attention backend must do, as a function that raises ``AssertionError`` with a sentence."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..attention import Attention, AttentionBackend
from ..errors import UnavailableError
from .contracts import _check_light, _require

if TYPE_CHECKING:
    import torch

#: Relative L2 distance from float64 math that rounding explains, with room: fp32 keeps 24 bits, fp16 11, bf16 8.
_TOLERANCES: Mapping[str, float] = {"fp32": 1e-5, "fp16": 3e-3, "bf16": 1.5e-2}
_LSE_TOLERANCES: Mapping[str, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-2}


@frozen(kw_only=True)
class _Case:
    """Sizes of one call, and what is special about it."""

    name: str
    batch: int = 2
    tokens: int = 37
    key_tokens: int = 37
    heads: int = 4
    key_heads: int = 4
    mask: str = ""
    scale: float | None = None
    is_causal: bool = False
    #: The capability that covers it.
    needs: tuple[str, ...] = field(factory=tuple)


_CASES = (
    _Case(name="self attention"),
    _Case(name="one query", tokens=1, key_tokens=1, batch=1),
    _Case(name="another scale", scale=0.3),
    _Case(name="cross attention", key_tokens=19, needs=("has_cross",)),
    _Case(name="a bool mask", mask="bool", needs=("has_masks",)),
    _Case(name="a mask of keys", mask="keys", batch=3, key_tokens=21, needs=("has_masks", "has_cross")),
    _Case(name="an additive mask", mask="additive", needs=("has_masks",)),
    _Case(name="causal attention", is_causal=True, needs=("has_causal",)),
    _Case(name="a causal bool mask", is_causal=True, mask="bool", needs=("has_causal", "has_masks")),
    _Case(name="grouped key heads", key_heads=2, needs=("has_grouped_heads",)),
)


def check_attention_backend(
    backend: AttentionBackend,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    parameters: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> None:
    """Hold a backend to the definition of attention, in float64, for every feature it declares.

    Shapes, dtype, scale, masks (bool and additive), cross lengths, grouped heads, causal attention; the log-sum-exp by
    merging two halves of the keys. What it does not declare has to be refused.

    :param precision: ``fp32``, ``bf16`` or ``fp16``.
    :param parameters: values for :attr:`AttentionBackend.parameters`.
    :param tolerance: relative L2 distance allowed; that of rounding if ``None``. Lossy backends state their own.
    """
    _check_declaration(backend)
    import torch

    attention = backend.create(parameters or {})
    allowed = _TOLERANCES[precision] if tolerance is None else tolerance
    head_dim = _head_dim(backend)
    for case in _CASES:
        call = _Call(
            case, head_dim, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision], device
        )
        if not all(getattr(backend.capabilities, name) for name in case.needs):
            _check_refused(backend.name, case.name, lambda call=call: call.attend(attention))  # type: ignore[misc]
            continue
        _check_result(backend.name, call, call.attend(attention), allowed)
        if backend.capabilities.has_lse:
            _check_lse(backend.name, call, attention, allowed, _LSE_TOLERANCES[precision])
        else:
            _check_refused(backend.name, "the log-sum-exp", lambda call=call: call.attend_with_lse(attention))  # type: ignore[misc]
    if backend.capabilities.has_lse and backend.capabilities.has_cross:
        _check_merging(backend.name, call, attention, allowed)


def _check_declaration(backend: AttentionBackend) -> None:
    name = backend.name
    _require(isinstance(name, str) and bool(name) and name == name.strip().lower(), f"{name!r} is no lower-case name")
    _require(backend.order is None or isinstance(backend.order, int), f"{name}: its order is {backend.order!r}")
    _require(
        not backend.is_lossy or backend.order is None,
        f"{name}: a lossy backend is never chosen automatically, so its order is None",
    )
    before = set(sys.modules)
    answer = backend.probe()
    _check_light(name, "probe", before)
    _require(answer.is_available, f"{name} cannot be checked here: {answer.reason} ({answer.remedy})")


def _head_dim(backend: AttentionBackend) -> int:
    can = backend.capabilities
    sizes = sorted(can.head_dims) or [min(can.max_head_dim or 64, 64)]
    return next((size for size in sizes if size >= 32), sizes[-1])


class _Call:
    """The tensors of one case, drawn from a fixed seed, and what attention of them is."""

    def __init__(self, case: _Case, head_dim: int, dtype: "torch.dtype", device: str) -> None:
        import torch

        self.case = case
        generator = torch.Generator().manual_seed(len(case.name))

        def draw(tokens: int, heads: int) -> "torch.Tensor":
            values = torch.randn(case.batch, tokens, heads, head_dim, generator=generator)
            return values.to(dtype).to(device)

        self.query = draw(case.tokens, case.heads)
        self.key, self.value = draw(case.key_tokens, case.key_heads), draw(case.key_tokens, case.key_heads)
        self.mask = self._mask(generator, device)
        self.scale = head_dim**-0.5 if case.scale is None else case.scale

    def _mask(self, generator: "torch.Generator", device: str) -> "torch.Tensor | None":
        import torch

        case = self.case
        if not case.mask:
            return None
        if case.mask == "keys":
            lengths = torch.tensor([case.key_tokens - 5 * index for index in range(case.batch)])
            return (torch.arange(case.key_tokens) < lengths[:, None])[:, None, None].to(device)
        values = torch.randn(1, 1, case.tokens, case.key_tokens, generator=generator)
        if case.mask == "additive":
            return values.to(device)
        is_seen = values > 0
        is_seen[..., 0] = True  # a query that sees nothing has no defined result
        return is_seen.to(device)

    def _arguments(self) -> dict[str, Any]:
        return {"mask": self.mask, "scale": self.case.scale, "is_causal": self.case.is_causal}

    def attend(self, attention: Attention) -> "torch.Tensor":
        return attention.attend(self.query, self.key, self.value, **self._arguments())

    def attend_with_lse(self, attention: Attention) -> "tuple[torch.Tensor, torch.Tensor]":
        return attention.attend_with_lse(self.query, self.key, self.value, **self._arguments())

    def exact(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the definition, in float64: (batch, tokens, heads, head_dim) and (batch, tokens, heads)."""
        import torch

        groups = self.case.heads // self.case.key_heads
        query = self.query.double().transpose(1, 2)
        key, value = (t.double().transpose(1, 2).repeat_interleave(groups, dim=1) for t in (self.key, self.value))
        scores = query @ key.transpose(-1, -2) * self.scale
        if self.mask is not None:
            is_bool = self.mask.dtype == torch.bool
            scores = scores.masked_fill(~self.mask, float("-inf")) if is_bool else scores + self.mask
        if self.case.is_causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return (scores.softmax(dim=-1) @ value).transpose(1, 2), scores.logsumexp(dim=-1).transpose(1, 2)


def _check_result(name: str, call: _Call, result: "torch.Tensor", allowed: float) -> None:
    what = f"{name}: {call.case.name}"
    _require(result.shape == call.query.shape, f"{what} has the shape {tuple(result.shape)}")
    _require(result.dtype == call.query.dtype, f"{what} of {call.query.dtype} returns {result.dtype}")
    _require(result.device == call.query.device, f"{what} on {call.query.device} returns {result.device}")
    exact, _ = call.exact()
    distance = float((result.double() - exact).norm() / exact.norm())
    _require(distance <= allowed, f"{what} differs from the definition by {distance:.1e}, allowed are {allowed:.1e}")


def _check_lse(name: str, call: _Call, attention: Attention, allowed: float, allowed_lse: float) -> None:
    import torch

    result, lse = call.attend_with_lse(attention)
    _check_result(name, call, result, allowed)
    what = f"{name}: the log-sum-exp of {call.case.name}"
    _require(lse.shape == call.query.shape[:3], f"{what} has the shape {tuple(lse.shape)}")
    _require(lse.dtype == torch.float32, f"{what} is {lse.dtype}, not float32")
    _, exact = call.exact()
    distance = float((lse.double() - exact).abs().max())
    limit = max(allowed_lse, allowed)
    _require(distance <= limit, f"{what} differs from the definition by {distance:.1e}, allowed are {limit:.1e}")


def _check_merging(name: str, call: _Call, attention: Attention, allowed: float) -> None:
    """Attend to two halves of the keys and merge by the log-sum-exp, as ring attention does."""
    import torch

    whole = _Call(
        _Case(name="merged halves", tokens=33, key_tokens=40),
        call.query.shape[-1],
        call.query.dtype,
        str(call.query.device),
    )
    parts = [
        attention.attend_with_lse(whole.query, whole.key[:, keys], whole.value[:, keys])
        for keys in (slice(0, 13), slice(13, None))
    ]
    weights = torch.stack([lse for _, lse in parts]).softmax(dim=0)
    merged = sum(weight.unsqueeze(-1) * out.float() for weight, (out, _) in zip(weights, parts, strict=True))
    assert isinstance(merged, torch.Tensor)
    _check_result(name, whole, merged.to(whole.query.dtype), allowed)


def _check_refused(name: str, what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except UnavailableError:
        return
    raise AssertionError(f"{name}: it does not declare {what}, but does not refuse it with an UnavailableError")
