"""From a path to the file of an adapter: a local file, a folder, or a repo of the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sglang_core import (
    ConfigError,
    FolderSource,
    ModelOptions,
    ModelReference,
    ModelSource,
    PluginManager,
    Settings,
    WeightFile,
    closest,
    read_json,
    read_weight_file,
)

from .adapters import Adapter

CONFIG_FILE = "adapter_config.json"
#: The names that the libraries which train adapters give them.
_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LOCAL_PREFIXES = ("./", "../", "/", "~")
#: Where diffusers keeps the configuration of an adapter inside its file.
_METADATA_KEY = "lora_adapter_metadata"


@frozen(kw_only=True)
class AdapterFile:
    """The file of an adapter: its header, and the configuration that came with it."""

    source: ModelSource
    header: WeightFile
    config: Mapping[str, Any] = field(factory=dict)

    def fetch(self) -> Path:
        """Return the file on this machine, downloaded if need be."""
        return self.source.fetch([self.header.path], lambda done, total: None) / self.header.path


def open_adapter(manager: PluginManager, adapter: Adapter, settings: Settings) -> AdapterFile:
    """Find the file of an adapter and read its header, without reading a weight.

    :raises SglangError: if there is none, it is of another format, or damaged.
    """
    label = f"--lora-path {adapter.path}"
    source, name = _find_source(manager, adapter, settings, label)
    path = name or _choose_file(source, adapter.weight_name, label)
    header = read_weight_file(source, path, source.files()[path])
    return AdapterFile(source=source, header=header, config=_configuration(source, path, header))


def _find_source(
    manager: PluginManager, adapter: Adapter, settings: Settings, label: str
) -> tuple[ModelSource, str | None]:
    """Return the place of an adapter, and its file where the path names one."""
    try:
        local = Path(adapter.path).expanduser()
        is_file, is_folder = local.is_file(), local.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no permission, too long, ~ of an unknown user, a zero
        raise ConfigError(f"{label}: the path can not be followed: {error}", "correct the path") from error
    if is_file:
        if local.suffix != ".safetensors":
            raise ConfigError(f"{label}: {local.name} is no safetensors file", "give the adapter as safetensors")
        return FolderSource(adapter.path, "file", local.parent), local.name
    if is_folder:
        return FolderSource(adapter.path, "directory", local), None
    if adapter.path.startswith(_LOCAL_PREFIXES) or adapter.path.endswith(".safetensors"):
        raise ConfigError(f"{label}: there is no such file or folder", "check the path")
    options = settings.of(ModelOptions)
    reference = ModelReference(path=adapter.path, token=options.hf_token, offline=options.offline)
    hints = []
    for resolver in sorted(manager.model_resolvers, key=lambda resolver: resolver.order):
        if not resolver.probe().is_available:
            continue
        source = resolver.resolve(reference)
        if source is not None:
            return source, None
        hints.append(resolver.hint(reference))
    raise ConfigError(
        f"{label}: no adapter is found there", "; or ".join(filter(None, hints)) or "give a file, a folder or a hub id"
    )


def _choose_file(source: ModelSource, wanted: str | None, label: str) -> str:
    files = sorted(path for path in source.files() if path.endswith(".safetensors"))
    if wanted is not None:
        if wanted in files:
            return wanted
        close = closest(wanted, files)
        remedy = f"use {close}" if close else f"use one of: {', '.join(files) or 'there is none'}"
        raise ConfigError(f"{label}: there is no file {wanted!r} (lora_weight_name)", remedy)
    if not files:
        pickled = [path for path in source.files() if path.endswith(_PICKLES)]
        problem = f"only pickled weights ({pickled[0]}), which may run code" if pickled else "no safetensors file"
        raise ConfigError(f"{label}: there is {problem}", "give the adapter as safetensors")
    usual = [name for name in _USUAL_NAMES if name in files]
    if usual or len(files) == 1:
        return usual[0] if usual else files[0]
    shown = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    raise ConfigError(f"{label}: there are several files: {shown}", "choose one with --lora-weight-name")


def _configuration(source: ModelSource, path: str, header: WeightFile) -> Mapping[str, Any]:
    """Return the configuration of PEFT that belongs to a file: inside of it, or beside it."""
    try:
        inside = json.loads(header.metadata.get(_METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        inside = {}
    if isinstance(inside, dict) and inside:
        return {key.rpartition(".")[2]: value for key, value in inside.items()}
    folder = path.rpartition("/")[0]
    beside = f"{folder}/{CONFIG_FILE}" if folder else CONFIG_FILE
    if beside not in source.files() or path.rpartition("/")[2] not in _USUAL_NAMES:
        return {}
    return read_json(source, beside)
