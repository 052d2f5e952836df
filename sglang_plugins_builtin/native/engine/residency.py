"""Where components live: on the device, in host memory until they are used, or streamed layer by layer."""

from collections.abc import Container, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Settles(Protocol):
    """A component that changes the form of its weights at its first use, or before when it is told to."""

    def settle(self) -> None:
        """Bring the weights into their last form: what is kept of them now is brought back at every use."""


class Residency:
    """Brings components to the device when they are used and takes them away again.

    Weights never change, so taking one away means dropping the device's copy: nothing is copied back.

    :param pins: keep the host's copies in pinned memory, from which they travel faster and beside computation.
    """

    def __init__(self, device: torch.device, *, pins: bool = True) -> None:
        self.device = device
        self._pins = pins and device.type == "cuda"
        self._moved: dict[str, _Moved] = {}
        self._streams: dict[str, _LayerStream] = {}
        self._used: str | None = None

    def place(
        self,
        name: str,
        module: nn.Module,
        mode: str,
        layers: Sequence[nn.Module] = (),
        used_once: Sequence[nn.Module] = (),
    ) -> None:
        """Put a component where its plan says.

        :param mode: ``resident``, ``component-offload`` or ``layerwise-offload``.
        :param layers: what is streamed, in the order of use; without layers the whole component is moved.
        :param used_once: parts, also of layers, that stay in host memory while layers are streamed: the component
            copies what it needs of them by itself, once in a run.
        """
        if mode != "resident" and isinstance(module, Settles):
            module.settle()
        if mode == "layerwise-offload" and layers:
            kept = {id(tensor) for part in used_once for _, _, tensor in _home_of(part, pins=self._pins)}
            streamed = {id(tensor) for layer in layers for tensor in _tensors(layer)}
            for owner, leaf, tensor in _slots(module):
                if id(tensor) not in streamed | kept:
                    _put(owner, leaf, tensor.to(self.device))
            self._streams[name] = _LayerStream(layers, self.device, pins=self._pins, without=kept)
        elif mode == "resident":
            module.to(self.device)
        else:
            self._moved[name] = _Moved(module, pins=self._pins)

    def use(self, name: str) -> None:
        """Make sure that a component can compute on the device; what is not needed for it leaves to make room."""
        if name == self._used:
            return
        for other, moved in self._moved.items():
            if other != name:
                moved.leave()
        for other, stream in self._streams.items():
            if other != name:
                stream.leave()
        if name in self._moved:
            self._moved[name].come(self.device)
        self._used = name

    @property
    def is_in_use(self) -> bool:
        """Say whether something is on the device, or on its way, that does not live there."""
        return self._used is not None

    @property
    def is_all_resident(self) -> bool:
        """Say whether everything lives on the device."""
        return not self._moved and not self._streams

    def release(self) -> None:
        """Take everything away that does not live on the device."""
        self._used = None
        for moved in self._moved.values():
            moved.leave()
        for stream in self._streams.values():
            stream.leave()

    def close(self) -> None:
        """Forget all components."""
        self.release()
        for stream in self._streams.values():
            stream.close()
        self._moved.clear()
        self._streams.clear()


class _Moved:
    """One component that is on the device only while it is used."""

    def __init__(self, module: nn.Module, *, pins: bool) -> None:
        self._home = _home_of(module, pins=pins)
        self._is_here = False

    def come(self, device: torch.device) -> None:
        if not self._is_here:
            for owner, leaf, tensor in self._home:
                _put(owner, leaf, tensor.to(device, non_blocking=True, copy=True))
            self._is_here = True

    def leave(self) -> None:
        if self._is_here:
            for owner, leaf, tensor in self._home:
                _put(owner, leaf, tensor)
            self._is_here = False


class _LayerStream:
    """Layers that follow each other: while one computes, the next is copied on a stream of its own."""

    def __init__(
        self, layers: Sequence[nn.Module], device: torch.device, *, pins: bool, without: Container[int]
    ) -> None:
        self._device = device
        self._homes = [_home_of(layer, pins=pins, without=without) for layer in layers]
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's gap
        self._coming: dict[int, tuple[list[torch.Tensor], Any]] = {}
        self._hooks = []
        for index, layer in enumerate(layers):
            self._hooks.append(layer.register_forward_pre_hook(self._arriver(index)))
            self._hooks.append(layer.register_forward_hook(self._leaver(index)))

    def _arriver(self, index: int) -> Any:
        def arrive(module: nn.Module, arguments: object) -> None:
            if index not in self._coming:
                self._send(index)
            values, copied = self._coming.pop(index)
            if copied is not None:
                torch.cuda.current_stream(self._device).wait_event(copied)
            for (owner, leaf, _), value in zip(self._homes[index], values, strict=True):
                _put(owner, leaf, value)
            following = (index + 1) % len(self._homes)
            if following not in self._coming:
                self._send(following)

        return arrive

    def _leaver(self, index: int) -> Any:
        def leave(module: nn.Module, arguments: object, result: object) -> None:
            self._go_home(index)

        return leave

    def _send(self, index: int) -> None:
        if self._stream is None:
            self._coming[index] = ([tensor.to(self._device, copy=True) for _, _, tensor in self._homes[index]], None)
            return
        # The memory of layers that have left is taken again by this stream alone, once what used them is computed. So
        # there are never more than two, however far the host runs ahead of the device.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            values = [tensor.to(self._device, non_blocking=True, copy=True) for _, _, tensor in self._homes[index]]
            copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's gap
            copied.record(self._stream)
        self._coming[index] = (values, copied)

    def _go_home(self, index: int) -> None:
        for owner, leaf, tensor in self._homes[index]:
            _put(owner, leaf, tensor)

    def leave(self) -> None:
        """Drop what is on the device or on its way, also after a run that was stopped in the middle."""
        self._coming.clear()
        for index in range(len(self._homes)):
            self._go_home(index)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _slots(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for leaf, tensor in table.items():
                if tensor is not None:
                    yield owner, leaf, tensor


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for _, _, tensor in _slots(module):
        yield tensor


def _home_of(
    module: nn.Module, *, pins: bool, without: Container[int] = ()
) -> list[tuple[nn.Module, str, torch.Tensor]]:
    """Bring all tensors of a module, but those whose ids are in ``without``, to host memory and return them."""
    home = []
    for owner, leaf, tensor in list(_slots(module)):
        if id(tensor) in without:
            continue
        kept = tensor.detach().to("cpu")
        kept = kept.pin_memory() if pins else kept
        _put(owner, leaf, kept)
        home.append((owner, leaf, _held(owner, leaf)))
    return home


def _held(owner: nn.Module, leaf: str) -> torch.Tensor:
    held = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
    assert held is not None
    return held


def _put(owner: nn.Module, leaf: str, value: torch.Tensor) -> None:
    if leaf in owner._parameters:
        owner._parameters[leaf] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
