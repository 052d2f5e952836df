"""Attention as it is defined, in float32: for tests, and where no kernel returns the log-sum-exp."""

import torch

from .calls import refuse_uneven_causal


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    is_causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result and the log-sum-exp (batch, query tokens, heads), computed in float32 or wider.

    query (batch, tokens, heads, head_dim), key and value (batch, key tokens, key heads, head_dim). Takes the memory of
    all scores: batch x heads x tokens x key tokens.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    groups = query.shape[2] // key.shape[2]
    q = query.to(dtype).transpose(1, 2)
    k, v = (
        tensor.to(dtype).transpose(1, 2).repeat_interleave(groups, dim=1)
        if groups > 1
        else tensor.to(dtype).transpose(1, 2)
        for tensor in (key, value)
    )
    scores = q @ k.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if mask is None else scores + additive(mask, dtype)
    if is_causal:
        refuse_uneven_causal(query, key)
        scores = scores + additive(causal_mask(query.shape[1], query.device), dtype)
    lse = scores.logsumexp(dim=-1)
    out = (scores - lse.unsqueeze(-1)).exp() @ v
    return out.transpose(1, 2).to(query.dtype), lse.transpose(1, 2).float()


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as something to add to the scores: what does not count becomes minus infinity."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def causal_mask(tokens: int, device: torch.device) -> torch.Tensor:
    """Return the bool mask (tokens, tokens) by which each token sees itself and those before it."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril_()


class ReferenceAttention:
    """The definition, with every feature and without any care for speed or memory."""

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
        """Return softmax(query key^T * scale + mask) value."""
        return plain_attention(query, key, value, mask, scale, is_causal)[0]

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
        """Return the result and the log-sum-exp."""
        return plain_attention(query, key, value, mask, scale, is_causal)
