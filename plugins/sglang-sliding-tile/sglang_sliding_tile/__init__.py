"""The attention backend ``sliding_tile_flex``: tokens of a clip see the tiles around their own."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from sglang_core import Attention, AttentionBackend, AttentionCapabilities, Availability, hookimpl

from .tiles import Tiling


class SlidingTileFlex:
    """Sparse self-attention on flex attention."""

    name = "sliding_tile_flex"
    aliases = ("sliding_tile",)
    order = None
    is_lossy = True
    capabilities = AttentionCapabilities(
        devices=("cuda", "cpu"), has_masks=False, has_causal=False, has_cross=False, has_lse=False
    )
    parameters: Mapping[str, type] = {"grid": str, "tile": str, "window": str}

    def probe(self) -> Availability:
        """Say whether torch is installed."""
        if importlib.util.find_spec("torch") is None:
            return Availability.no("torch is not installed", 'pip install "sglang-plugins[diffusers]"')
        return Availability.yes()

    def create(self, parameters: Mapping[str, Any]) -> Attention:
        """Return attention for one grid.

        :raises ConfigError: if a parameter is not three whole numbers, or does not fit the others.
        """
        tiling = Tiling.from_parameters(parameters)
        from .kernel import SlidingTileAttention  # torch and flex attention, which brings its compiler

        return SlidingTileAttention(tiling)


@hookimpl
def sglang_register_attention_backends() -> list[AttentionBackend]:
    return [SlidingTileFlex()]
