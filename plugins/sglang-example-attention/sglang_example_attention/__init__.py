"""The attention backend ``plain_softmax``: the definition of attention, written out."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from sglang_core import Attention, AttentionBackend, AttentionCapabilities, Availability, hookimpl


class PlainSoftmax:
    """Exact attention with all scores in memory."""

    name = "plain_softmax"
    aliases = ("softmax",)
    order = None  # only when it is asked for
    is_lossy = False
    capabilities = AttentionCapabilities(has_causal=False, has_grouped_heads=False)
    parameters: Mapping[str, type] = {}

    def probe(self) -> Availability:
        """Say whether torch is installed."""
        if importlib.util.find_spec("torch") is None:
            return Availability.no("torch is not installed", 'pip install "sglang-plugins[native]"')
        return Availability.yes()

    def create(self, parameters: Mapping[str, Any]) -> Attention:
        """Return the attention."""
        from .softmax import SoftmaxAttention  # torch: seconds, so only here

        return SoftmaxAttention()


@hookimpl
def sglang_register_attention_backends() -> list[AttentionBackend]:
    return [PlainSoftmax()]
