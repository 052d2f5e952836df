"""What the transform remembers: adapters that were looked at, and what a pipeline has of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from sglang_core import ModelDescription

    from .adapters import Adapter
    from .fitting import Fit
    from .merging import LoadedAdapter, MergedWeights
    from .sources import AdapterFile


@frozen(eq=False)
class Fitted:
    """An adapter's file, and what it changes in one model."""

    file: AdapterFile
    model: ModelDescription
    fit: Fit


@frozen(eq=False)
class Held:
    """A pipeline's adapters: what was asked for last, the weights, and the adapters in memory."""

    state: Hashable
    weights: MergedWeights
    loaded: Mapping[Adapter, LoadedAdapter]
