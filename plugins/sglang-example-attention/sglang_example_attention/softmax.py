"""softmax(q k^T * scale + mask) v. Heavy: imports torch."""

import torch

from sglang_core import UnavailableError


class SoftmaxAttention:
    """Tensors are (batch, tokens, heads, head_dim)."""

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """Return the weighted values, of the shape and dtype of ``query``."""
        return self.attend_with_lse(query, key, value, mask=mask, scale=scale, is_causal=is_causal)[0]

    def attend_with_lse(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted values, and the log-sum-exp of each query's scores: float32 (batch, tokens, heads).

        :raises UnavailableError: for what the backend does not declare.
        """
        if is_causal or query.shape[2] != key.shape[2]:
            what = "causal attention" if is_causal else "grouped key heads"
            raise UnavailableError(f"plain_softmax does not compute {what}", "choose another attention backend")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float()) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        out = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), value.float())
        return out.to(query.dtype), scores.logsumexp(dim=-1).transpose(1, 2)
