"""From weight files to modules: memory-mapped, checked by name and shape before a value is read, without a copy."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sglang_core import ComponentDescription, ModelLoadError

from ..layers.mapped_pages import MappedFiles

#: Returns the name a module has for a stored weight, or ``None`` for weights that are not needed.
Rename = Callable[[str], str | None]


def read_weights(
    module: nn.Module,
    description: ComponentDescription,
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    rename: Rename = lambda name: name,
    float32_parts: Collection[str] = (),
) -> None:
    """Give every parameter and buffer of ``module`` its stored value.

    Safetensors files are mapped into memory: a weight that is stored in ``dtype`` and stays on the CPU is never
    copied. Pickled files are read with ``weights_only``, so no code in them runs.

    :param folder: the model's folder; the paths of ``description`` are relative to it.
    :param dtype: of floating-point weights.
    :param float32_parts: names (parts between dots) whose weights stay float32 whatever ``dtype`` is.
    :raises ModelLoadError: if weights are missing, unknown, of another shape or kind, or cannot be read.
    """
    wanted = _tensors_of(module)
    seen: set[str] = set()
    for file in description.weights:
        try:
            with _open(folder / file.path) as reader:
                files = MappedFiles()
                names = {stored: rename(stored) for stored in reader.names()}
                _check(description, wanted, names, reader)
                for stored, name in names.items():
                    if name is None:
                        continue
                    keeps_float32 = not set(float32_parts).isdisjoint(name.split("."))
                    read = reader.read(stored)
                    if wanted[name].is_floating:
                        _check_floating(description, stored, read)
                    value = _cast(read, torch.float32 if keeps_float32 else dtype, device)
                    if value is not read:
                        files.give_back(read)
                    _assign(module, name, value)
                    seen.add(name)
        except (OSError, SafetensorError, RuntimeError, UnpicklingError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ModelLoadError(
                f"weight file {file.path} can not be read: {' '.join(str(error).split())}", "download the file again"
            ) from error
    missing = sorted(wanted.keys() - seen)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelLoadError(
            f"{description.name} ({description.class_name}) has no weight {missing[0]!r}{more}",
            "download the model again; the weights do not fit its configuration",
        )


class _Wanted(NamedTuple):
    """What a module expects of a weight."""

    shape: tuple[int, ...]
    is_floating: bool


def _tensors_of(module: nn.Module) -> dict[str, _Wanted]:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    persistent = module.state_dict(keep_vars=True).keys()
    return {
        name: _Wanted(tuple(tensor.shape), tensor.is_floating_point())
        for name, tensor in tensors.items()
        if name in persistent
    }


def _check(
    description: ComponentDescription,
    wanted: Mapping[str, _Wanted],
    names: Mapping[str, str | None],
    reader: "_Safetensors | _Pickle",
) -> None:
    for stored, name in names.items():
        if name is None:
            continue
        if name not in wanted:
            raise ModelLoadError(
                f"{description.name} ({description.class_name}) has a weight {stored!r} that its class does not have",
                "use --backend diffusers, or another version of the model",
            )
        shape = reader.shape(stored)
        if shape != wanted[name].shape:
            raise ModelLoadError(
                f"weight {stored!r} of {description.name} has the shape {list(shape)}, "
                f"not {list(wanted[name].shape)} as its configuration says",
                "download the model again; the weights do not fit its configuration",
            )


def _check_floating(description: ComponentDescription, stored: str, value: torch.Tensor) -> None:
    """Refuse whole numbers, of which quantised weights are made, and what is not stored value by value."""
    if not value.is_floating_point() or value.layout != torch.strided:
        kind = str(value.dtype if value.layout == torch.strided else value.layout).partition(".")[2]
        raise ModelLoadError(
            f"weight {stored!r} of {description.name} is stored as {kind}, not as floating-point numbers",
            "use --backend diffusers, or a model that is not quantised",
        )


def _cast(value: torch.Tensor, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    return value.to(device=device, dtype=dtype if value.is_floating_point() else value.dtype)


def _assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


class _Safetensors:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> "_Safetensors":
        opened: Any = safe_open(self._path, framework="pt", device="cpu")
        self._file = opened.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def names(self) -> list[str]:
        return list(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor


class _Pickle:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: dict[str, torch.Tensor] = {}

    def __enter__(self) -> "_Pickle":
        # The format before torch 1.6 is no zip file, and can not be mapped.
        state = torch.load(self._path, map_location="cpu", weights_only=True, mmap=is_zipfile(self._path))
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise UnpicklingError("it holds something else than weights by name")
        others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if others:
            raise UnpicklingError(f"its {others[0]!r} is no weight")
        self._state = state
        return self

    def __exit__(self, *error: object) -> None:
        self._state = {}

    def names(self) -> list[str]:
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def read(self, name: str) -> torch.Tensor:
        return self._state[name]


def _open(path: Path) -> _Safetensors | _Pickle:
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickle(path)
