"""Kernels as :class:`Attention`: what a backend does not declare is refused before the kernel sees it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sglang_core import AttentionCapabilities, UnavailableError

if TYPE_CHECKING:
    import torch

    #: Takes query, key, value, mask, scale, is_causal, and whether the log-sum-exp is wanted; returns the result and
    #: the log-sum-exp as (batch, query tokens, heads) or ``None``.
    Kernel = Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool, bool],
        tuple[torch.Tensor, torch.Tensor | None],
    ]


class KernelAttention:
    """Attention by one kernel function, within the capabilities of its backend."""

    def __init__(self, name: str, capabilities: AttentionCapabilities, kernel: "Kernel") -> None:
        self._name = name
        self._can = capabilities
        self._kernel = kernel

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
        """Return softmax(query key^T * scale + mask) value.

        :raises UnavailableError: if the backend does not declare what the call asks for.
        """
        self._refuse(query, key, mask, is_causal)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return self._kernel(query, key, value, mask, scale, is_causal, False)[0]

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
        """Return the result, and the log-sum-exp as float32 (batch, query tokens, heads).

        :raises UnavailableError: if the backend does not declare what the call asks for.
        """
        if not self._can.has_lse:
            raise self._refusal("the log-sum-exp")
        self._refuse(query, key, mask, is_causal)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        out, lse = self._kernel(query, key, value, mask, scale, is_causal, True)
        assert lse is not None
        return out, lse.float()

    def _refuse(self, query: "torch.Tensor", key: "torch.Tensor", mask: "torch.Tensor | None", is_causal: bool) -> None:
        if mask is not None and not self._can.has_masks:
            raise self._refusal("a mask")
        if is_causal and not self._can.has_causal:
            raise self._refusal("causal attention")
        if query.shape[1] != key.shape[1] and not self._can.has_cross:
            raise self._refusal("cross attention")
        if query.shape[2] != key.shape[2] and not self._can.has_grouped_heads:
            raise self._refusal("grouped key heads")

    def _refusal(self, what: str) -> UnavailableError:
        return UnavailableError(
            f"attention backend {self._name} does not compute {what}",
            "use --attention-backend torch_sdpa, or name another one for this component with "
            "--component-attention-backends",
        )


def refuse_uneven_causal(query: "torch.Tensor", key: "torch.Tensor") -> None:
    """Refuse causal attention of other lengths: backends disagree on which corner the diagonal starts in.

    :raises UnavailableError: if there are not as many queries as keys.
    """
    if query.shape[1] != key.shape[1]:
        problem = f"causal attention of {query.shape[1]} queries over {key.shape[1]} keys is not defined"
        raise UnavailableError(problem, "give a mask that says which keys each query sees")
