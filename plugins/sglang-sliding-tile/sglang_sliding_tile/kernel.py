"""Flex attention with a block mask of tiles. Heavy: imports torch and its compiler.

Tokens are put in the order of their tiles, so that the blocks that flex attention skips are whole tiles.
"""

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from sglang_core import RequestError, UnavailableError

from .tiles import Tiling


class SlidingTileAttention:
    """Self-attention of one grid of tokens; the mask is made once for each device."""

    def __init__(self, tiling: Tiling) -> None:
        self._tiling = tiling
        self._masks: dict[torch.device, BlockMask] = {}
        order, places = _by_tile(tiling)
        self._order, self._back, self._places = order, order.argsort(), places

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
        """Return attention in which each token sees the tiles around its own.

        :raises UnavailableError: for a mask, causal or cross attention.
        :raises RequestError: if there are not as many tokens as in the grid.
        """
        self._refuse(query, key, mask, is_causal)
        order = self._order.to(query.device)
        q, k, v = (tensor[:, order].transpose(1, 2) for tensor in (query, key, value))
        compute: Any = _compiled() if query.device.type == "cuda" else flex_attention
        is_grouped = query.shape[2] != key.shape[2]
        out = compute(q, k, v, block_mask=self._mask(query.device), scale=scale, enable_gqa=is_grouped)
        restored: torch.Tensor = out.transpose(1, 2)[:, self._back.to(query.device)]
        return restored

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
        """Refuse: parts of a sparse result cannot be merged.

        :raises UnavailableError: always.
        """
        raise _refusal("the log-sum-exp")

    def _refuse(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, is_causal: bool) -> None:
        if mask is not None:
            raise _refusal("a mask")
        if is_causal:
            raise _refusal("causal attention")
        if query.shape[1] != key.shape[1]:
            raise _refusal("cross attention")
        if query.shape[1] != self._tiling.num_tokens:
            raise RequestError(
                f"sliding_tile_flex is set to a grid of {self._tiling}, but the model attends to {query.shape[1]}",
                "give the grid of this size and length: --attention-backend-config grid=FRAMESxROWSxCOLUMNS",
            )

    def _mask(self, device: torch.device) -> BlockMask:
        if device not in self._masks:
            places = self._places.to(device)  # (tokens, 3), in the order of the tiles
            firsts = [torch.tensor(self._tiling.first_seen(direction), device=device) for direction in range(3)]
            window = self._tiling.window

            def is_seen(batch: torch.Tensor, head: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
                seen = torch.ones_like(q, dtype=torch.bool)
                for direction, first in enumerate(firsts):
                    offset = places[k, direction] - first[places[q, direction]]
                    seen = seen & (offset >= 0) & (offset < window[direction])
                return seen

            tokens = self._tiling.num_tokens
            self._masks[device] = create_block_mask(is_seen, None, None, tokens, tokens, device=str(device))
        return self._masks[device]


def _by_tile(tiling: Tiling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens in the order of their tiles, and for each of them its tile as (frame, row, column)."""
    axes = [torch.arange(size) // step for size, step in zip(tiling.grid, tiling.tile, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    _, rows, columns = tiling.num_tiles
    numbers = (places[:, 0] * rows + places[:, 1]) * columns + places[:, 2]
    order = numbers.argsort(stable=True)
    return order, places[order]


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _refusal(what: str) -> UnavailableError:
    return UnavailableError(
        f"attention backend sliding_tile_flex does not compute {what}",
        "choose another one for this component with --component-attention-backends",
    )
