"""A model on the hub, by its id."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from sglang_core import Availability, ModelNotFoundError

if TYPE_CHECKING:
    from sglang_core import ModelReference, ModelSource

_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_INSTALL = 'pip install "sglang-plugins[hub]"'


class HubResolver:
    """Takes ids such as ``Qwen/Qwen-Image``. Nothing is imported or asked over the network before that."""

    name = "hub"
    order = 30

    def probe(self) -> Availability:
        """Say whether the hub's client is installed."""
        if importlib.util.find_spec("huggingface_hub") is None:
            return Availability.no("the package huggingface_hub is not installed", _INSTALL)
        return Availability.yes()

    def resolve(self, reference: ModelReference) -> ModelSource | None:
        """Return the repo as a model, or ``None`` if the reference is not ``organisation/name``.

        :raises ModelNotFoundError: if the hub has no such repo or revision, gives no access, or can not be reached.
        """
        if not _HUB_ID.fullmatch(reference.path):
            return None
        availability = self.probe()
        if not availability.is_available:
            raise ModelNotFoundError(f"{reference.path} is a hub id, but {availability.reason}", availability.remedy)

        from .hub_source import open_hub_model  # imports the client: a third of a second

        return open_hub_model(reference)

    def hint(self, reference: ModelReference) -> str | None:
        """Say what a hub id looks like."""
        return "a hub id of the form organisation/name"
