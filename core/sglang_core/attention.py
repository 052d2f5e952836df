"""What an attention backend is to the host, and what it can serve. Nothing of torch is imported."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from .registry import Availability

if TYPE_CHECKING:
    import torch

#: What a component is asked about beside its whole: ``transformer.self``, ``transformer.cross``.
ATTENTION_ROLES = ("self", "cross")


@frozen(kw_only=True)
class AttentionNeed:
    """What the attention layers of one component ask for, known before weights are read."""

    head_dim: int
    num_heads: int
    #: Heads of keys and values; fewer than ``num_heads`` means grouped queries.
    num_kv_heads: int | None = None
    #: Whether some call adds a bias to the scores, or hides keys.
    has_mask: bool = False
    is_causal: bool = False
    is_cross: bool = False
    #: Whether the log-sum-exp is used, as ring attention does.
    needs_lse: bool = False


@frozen(kw_only=True)
class AttentionCapabilities:
    """What a backend can compute. An empty collection means: no restriction."""

    devices: Collection[str] = ()
    #: ``fp32``, ``bf16``, ``fp16``.
    precisions: Collection[str] = ()
    head_dims: Collection[int] = ()
    max_head_dim: int | None = None
    #: The least and the first too large CUDA compute capability, as (major, minor).
    min_compute_capability: tuple[int, int] | None = None
    below_compute_capability: tuple[int, int] | None = None
    has_masks: bool = True
    has_causal: bool = True
    has_cross: bool = True
    has_grouped_heads: bool = True
    has_lse: bool = True


class Attention(Protocol):
    """An attention backend with its parameters, ready to be called.

    ``query`` is (batch, query tokens, heads, head_dim), ``key`` and ``value`` are (batch, key tokens, key heads,
    head_dim), all of one dtype on one device. ``mask`` is added to the scores (floating point) or says which keys
    count (bool); it broadcasts to (batch, heads, query tokens, key tokens). ``scale`` defaults to
    ``head_dim ** -0.5``. With ``is_causal`` there are as many queries as keys, and each sees itself and those before
    it. What the backend does not declare in its capabilities is refused with :class:`UnavailableError`.
    """

    def attend(
        self,
        query: "torch.Tensor",
        key: "torch.Tensor",
        value: "torch.Tensor",
        *,
        mask: "torch.Tensor | None" = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> "torch.Tensor":
        """Return softmax(query key^T * scale + mask) value, of the shape and dtype of ``query``."""

    def attend_with_lse(
        self,
        query: "torch.Tensor",
        key: "torch.Tensor",
        value: "torch.Tensor",
        *,
        mask: "torch.Tensor | None" = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the result and the natural logarithm of the sum of exponentials of each query's scores.

        The second is float32 of shape (batch, query tokens, heads).
        """


class AttentionBackend(Protocol):
    """One way to compute attention, selectable by name."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def aliases(self) -> Collection[str]:
        """Further names."""

    @property
    def order(self) -> int | None:
        """The automatic choice takes the first, in ascending order, that fits; ``None``: only when asked for."""

    @property
    def is_lossy(self) -> bool:
        """Whether results differ from exact attention by more than rounding (quantised or sparse kernels)."""

    @property
    def capabilities(self) -> AttentionCapabilities:
        """What it can compute."""

    @property
    def parameters(self) -> Mapping[str, type]:
        """The keys of ``--attention-backend-config`` it takes, each with its type."""

    def probe(self) -> Availability:
        """Say whether it can work here, without importing anything heavy."""

    def create(self, parameters: Mapping[str, Any]) -> Attention:
        """Return the attention with these parameters; what computes is imported here.

        :raises ConfigError: if a parameter has a value that cannot be used.
        :raises UnavailableError: if its packages do not import.
        """
