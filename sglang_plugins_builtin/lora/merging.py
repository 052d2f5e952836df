"""Adapters in the weights of a loaded pipeline: merged in float32, and taken out by putting the originals back."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file

from sglang_core import ChangeablePipeline, ModelLoadError, RequestError

from .adapters import ActiveAdapter
from .fitting import Fit, Pair

logger = logging.getLogger(__name__)


@frozen(eq=False)
class LoadedAdapter:
    """The tensors of an adapter in host memory, as they are stored, and the SHA-256 of their file."""

    tensors: Mapping[str, torch.Tensor]
    sha256: str

    def product(self, pair: Pair, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Return the two matrices of a layer in float32, (out, rank) and (rank, in), and the scale of their product."""
        up, down = (self.tensors[name].to(device, torch.float32).flatten(1) for name in (pair.up, pair.down))
        alpha = None if pair.alpha_name is None else float(self.tensors[pair.alpha_name].float())
        return up, down, pair.scale(alpha)


def load_adapter(path: Path) -> LoadedAdapter:
    """Read an adapter.

    :raises ModelLoadError: if its file can not be read.
    :raises RequestError: if it holds values that are no numbers.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # Copies: a mapped file that is changed later would change the adapter, or end the process.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"the adapter {path} can not be read: {error}", "give it again") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise RequestError(f"the adapter {path.name} holds values that are no numbers ({name})", "use another one")
    return LoadedAdapter(tensors=tensors, sha256=digest)


@frozen(eq=False)
class Part:
    """One adapter that acts, with everything that is needed to apply it."""

    active: ActiveAdapter
    loaded: LoadedAdapter
    fit: Fit


@frozen(eq=False)
class _Change:
    """What one adapter adds to one weight."""

    loaded: LoadedAdapter
    pair: Pair
    strength: float


@frozen(eq=False)
class _Original:
    """A weight without adapters, in host memory, and where it lives."""

    value: torch.Tensor
    device: torch.device


#: A weight of a pipeline: its component, and its name in the model's files.
_Key = tuple[str, str]


class MergedWeights:
    """The adapters in the weights of one pipeline.

    Of every weight that is changed the original is kept, so that what was merged can be taken out to the last bit.
    """

    def __init__(self) -> None:
        self._originals: dict[_Key, _Original] = {}
        self._parts: Sequence[Part] = ()

    def bring(self, pipeline: ChangeablePipeline, parts: Sequence[Part]) -> None:
        """Have exactly these adapters in the weights.

        :param pipeline: always the same one; it is not kept, so that it can go.
        :raises SglangError: if that can not be; the weights are as before then.
        """
        before = self._parts
        try:
            self._bring(pipeline, parts)
        except BaseException:
            self._bring(pipeline, before)
            raise

    def _bring(self, pipeline: ChangeablePipeline, parts: Sequence[Part]) -> None:
        changes = _changes_of(parts)
        with torch.no_grad():
            for key in [key for key in self._originals if key not in changes]:
                original = self._originals[key]
                pipeline.write_weight(*key, original.value.to(original.device))
                del self._originals[key]
            unused = sum(not self._change(pipeline, key, own) for key, own in changes.items())
        self._parts = parts
        if unused:
            logger.debug("%d weights of the adapters are used by no run", unused)

    def _change(self, pipeline: ChangeablePipeline, key: _Key, changes: Sequence[_Change]) -> bool:
        """Apply all changes to the original of a weight; say whether it is one that runs use."""
        original = self._originals.get(key)
        if original is None:
            weight: Any = pipeline.read_weight(*key)
            if weight is None:
                return False
            original = _Original(weight.to("cpu"), weight.device)
        # Noted before it is written, so that it can be put back whatever happens.
        self._originals[key] = original
        pipeline.write_weight(*key, changed(original.value.to(original.device), changes))
        return True


def _changes_of(parts: Sequence[Part]) -> dict[_Key, list[_Change]]:
    found: dict[_Key, list[_Change]] = {}
    for part in parts:
        for component, strength in part.active.strengths.items():
            for pair in part.fit.get(component, ()):
                change = _Change(part.loaded, pair, strength)
                found.setdefault((component, f"{pair.layer}.weight"), []).append(change)
    return found


def changed(weight: torch.Tensor, changes: Sequence[_Change]) -> torch.Tensor:
    """Return weight + sum of strength * scale * up @ down, computed in float32 and rounded once, in the same dtype."""
    wide = weight.to(torch.float32, copy=True).flatten(1)
    for change in changes:
        up, down, scale = change.loaded.product(change.pair, weight.device)
        wide.add_(up @ down, alpha=change.strength * scale)
    return wide.view(weight.shape).to(weight.dtype)
