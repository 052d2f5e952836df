"""From a model reference to what the plan needs to know about the model, without reading weights."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen

from .errors import ModelLoadError
from .registry import Availability
from .safetensors_header import WeightFile, read_weight_file
from .weight_files import choose_weight_files, is_weight_file, shard_index_of

INDEX_FILE = "model_index.json"
#: Where the configuration of a component may lie, inside its folder.
CONFIG_FILES = ("config.json", "scheduler_config.json")
#: No metadata file of a real model comes near; a larger one is not read into memory.
_LARGEST_JSON_BYTES = 64 * 2**20
#: Component and module names that are path-safe: they become folder and file names.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Files of a component folder that no loader reads.
_UNUSED_FILE = re.compile(r"(\.(md|png|jpe?g|webp|gif|mp4|py|gitattributes|gitignore)|\.index(\.\w+)?\.json)\Z")
#: Classes with a folder, but without weights.
_WEIGHTLESS_CLASS = re.compile(r"(Tokenizer|TokenizerFast|Scheduler|Processor|ProcessorFast|FeatureExtractor|Guider)\Z")
#: Told while files arrive: bytes so far, bytes in all.
ProgressCallback = Callable[[int, int], None]


@frozen(kw_only=True)
class ModelReference:
    """What the user calls the model: a folder, a hub id, an embedded name."""

    path: str
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False


class ModelSource(Protocol):
    """A model that a resolver has found; nothing of its weights is read or downloaded yet."""

    @property
    def reference(self) -> str:
        """The name under which the user knows the model."""

    @property
    def resolver(self) -> str:
        """The name of the resolver that found it."""

    @property
    def revision(self) -> str | None:
        """The exact revision (a commit, a content version), if the source has revisions."""

    def files(self) -> Mapping[str, int]:
        """Return every file as relative POSIX path and size in bytes."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes of a file from ``start`` (to its end if ``None``)."""

    def fetch(self, paths: Collection[str], progress: ProgressCallback) -> Path:
        """Make ``paths`` available in one local folder and return the folder."""

    def sampling_defaults(self) -> Mapping[str, Any]:
        """Return the request values recommended for this model, possibly none."""


class ModelResolver(Protocol):
    """Finds models. Resolvers are asked in ascending ``order``; the first that answers wins."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """Its place among its kind: lower comes first."""

    def probe(self) -> Availability:
        """Say whether this resolver can work here."""

    def resolve(self, reference: ModelReference) -> ModelSource | None:
        """Return the model, or ``None`` if the reference is not of this resolver's kind.

        :raises ModelNotFoundError: if it is of this kind, but leads nowhere.
        """

    def hint(self, reference: ModelReference) -> str | None:
        """Say in a phrase what this resolver would have accepted, for the message when all decline."""


@frozen(kw_only=True)
class ComponentDescription:
    """One component of a pipeline: its class, its configuration, its weights on disk."""

    name: str
    #: Python package of the class, as in the index: ``diffusers``, ``transformers``, or a module of the repo.
    library: str
    class_name: str
    config: Mapping[str, Any] = field(factory=dict, repr=False)
    weights: tuple[WeightFile, ...] = ()
    #: The files to fetch for this component, relative to the model folder.
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def num_parameters(self) -> int:
        """Return the number of stored values; 0 where the format does not tell without reading."""
        return sum(file.num_parameters for file in self.weights)

    @property
    def num_bytes(self) -> int:
        """Return the size of the weights as stored."""
        return sum(file.num_bytes for file in self.weights)

    @property
    def dtype(self) -> str | None:
        """Return the dtype most values are stored in (``bf16``, ``fp16``, ``fp32``, ...), if known."""
        totals: dict[str, int] = {}
        for file in self.weights:
            for dtype, count in file.parameters_by_dtype.items():
                totals[dtype] = totals.get(dtype, 0) + count
        return max(totals, key=lambda dtype: totals[dtype]) if totals else None


@frozen(kw_only=True)
class ModelDescription:
    """What the metadata of a model says: pipeline class, components, recommended values."""

    reference: str
    resolver: str
    revision: str | None
    pipeline_class: str
    #: The Python file of a pipeline or component class that the repo brings, if it does.
    custom_code: tuple[str, ...] = ()
    #: The text of the pipeline's own Python file, where the repo brings one. It is read, never run, while planning.
    pipeline_code: str = field(default="", repr=False)
    components: Mapping[str, ComponentDescription]
    index: Mapping[str, Any] = field(factory=dict, repr=False)
    sampling_defaults: Mapping[str, Any] = field(factory=dict)

    @property
    def num_bytes(self) -> int:
        """Return the size of all weights as stored."""
        return sum(component.num_bytes for component in self.components.values())

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that loading this model needs."""
        needed = {INDEX_FILE, *self.custom_code}
        for component in self.components.values():
            needed.update(component.files)
        return tuple(sorted(needed))

    @property
    def fewest_steps(self) -> int:
        """Return how many steps its noise schedule takes: a single level can not be stretched to two ends."""
        scheduler = self.components.get("scheduler")
        return 2 if scheduler is not None and scheduler.config.get("shift_terminal") else 1


def describe_model(source: ModelSource) -> ModelDescription:
    """Read the metadata of a model: its index, the component configurations, the weight headers.

    :raises ModelLoadError: if the index is missing or not one, names something outside the folder, lists a component
        that is not there, or a weight file is damaged.
    """
    files = source.files()
    index = _read_index(source, files)
    components = {
        name: _describe_component(source, files, name, library, class_name)
        for name, library, class_name in _component_entries(source, index)
    }
    pipeline_class, custom = _pipeline_class(source, index, files)
    return ModelDescription(
        reference=source.reference,
        resolver=source.resolver,
        revision=source.revision,
        pipeline_class=pipeline_class,
        custom_code=custom + _component_code(components, files),
        pipeline_code=source.read(custom[0]).decode("utf-8", errors="replace") if custom else "",
        components=components,
        index=index,
        sampling_defaults=source.sampling_defaults(),
    )


def _read_index(source: ModelSource, files: Mapping[str, int]) -> dict[str, Any]:
    if INDEX_FILE not in files:
        names = sorted({path.split("/", 1)[0] for path in files})
        there = f"it has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "it is empty"
        raise ModelLoadError(
            f"{source.reference} has no {INDEX_FILE}, so it is not a diffusers-style pipeline folder ({there})",
            "give the folder or repo that holds the whole pipeline, not one component or a single weight file",
        )
    index = read_json(source, INDEX_FILE)
    if not isinstance(index.get("_class_name"), str | list):
        raise ModelLoadError(
            f"{INDEX_FILE} of {source.reference} names no pipeline class (_class_name)",
            "download the model again, or write the name of its pipeline class into the file",
        )
    return index


def read_json(source: ModelSource, path: str) -> dict[str, Any]:
    """Return a JSON object from a file of the model.

    :raises ModelLoadError: if the file is not a JSON object, or is too large to be one of a model.
    """
    num_bytes = source.files().get(path, 0)
    if num_bytes > _LARGEST_JSON_BYTES:
        raise ModelLoadError(
            f"{path} of {source.reference} has {num_bytes:,} bytes, too many for metadata", "download the model again"
        )
    try:
        value = json.loads(source.read(path))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(
            f"{path} of {source.reference} is not JSON: {error}", "download the model again"
        ) from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} of {source.reference} is not a JSON object", "download the model again")
    return value


def _component_entries(source: ModelSource, index: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, library and class of the components; ``[null, null]`` stands for one that was left out.

    Other values of the index are settings of the pipeline.
    """
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or None in entry:
            continue
        if not any(isinstance(item, str) for item in entry):
            continue
        if not all(isinstance(item, str) and _SAFE_NAME.fullmatch(item) for item in (name, *entry)):
            raise ModelLoadError(
                f"{INDEX_FILE} of {source.reference} lists a component that can not be one: {name!r}: {entry!r}",
                "download the model again, and from a source you trust",
            )
        yield name, entry[0], entry[1]


def _pipeline_class(
    source: ModelSource, index: Mapping[str, Any], files: Mapping[str, int]
) -> tuple[str, tuple[str, ...]]:
    """Return the pipeline's class name and its Python file, if the repo brings one.

    A list stands for custom code: ``["pipeline_module", "ClassName"]``.
    """
    declared = index["_class_name"]
    if isinstance(declared, str):
        return declared, ("pipeline.py",) if "pipeline.py" in files else ()
    if len(declared) != 2 or not all(isinstance(item, str) and _SAFE_NAME.fullmatch(item) for item in declared):
        raise ModelLoadError(
            f"{INDEX_FILE} of {source.reference} names a pipeline class that can not be one: {declared!r}",
            "download the model again, and from a source you trust",
        )
    module = f"{declared[0]}.py"
    return declared[1], (module,) if module in files else ()


def _component_code(components: Mapping[str, ComponentDescription], files: Mapping[str, int]) -> tuple[str, ...]:
    """Return the Python files of components whose class comes from the repo itself."""
    found: dict[str, None] = {}  # an ordered set
    for name, component in components.items():
        path = f"{name}/{component.library}.py"
        if path in files:
            found[path] = None
        if isinstance(component.config.get("auto_map"), dict):
            found.update(dict.fromkeys(sorted(f for f in files if f.startswith(f"{name}/") and f.endswith(".py"))))
    return tuple(found)


def _describe_component(
    source: ModelSource, files: Mapping[str, int], name: str, library: str, class_name: str
) -> ComponentDescription:
    inside = sorted(path for path in files if path.startswith(f"{name}/"))
    if not inside:
        raise ModelLoadError(
            f"{INDEX_FILE} of {source.reference} lists the component {name} ({class_name}), but has no such folder",
            "download the model again, with all its folders",
        )
    weight_paths = choose_weight_files([path for path in inside if path.count("/") == 1])
    shard_index = shard_index_of(weight_paths)
    if shard_index is not None:
        _check_shards(source, files, shard_index, weight_paths)
    config = next((f"{name}/{file}" for file in CONFIG_FILES if f"{name}/{file}" in files), "")
    if config == f"{name}/config.json" and not weight_paths and not _WEIGHTLESS_CLASS.search(class_name):
        raise ModelLoadError(
            f"the component {name} ({class_name}) of {source.reference} has no weights", "download the model again"
        )
    plain = [path for path in inside if not is_weight_file(path) and not _UNUSED_FILE.search(path)]
    return ComponentDescription(
        name=name,
        library=library,
        class_name=class_name,
        config=read_json(source, config) if config else {},
        weights=tuple(read_weight_file(source, path, files[path]) for path in weight_paths),
        files=tuple(sorted({*plain, *weight_paths, *([shard_index] if shard_index else [])})),
    )


def _check_shards(source: ModelSource, files: Mapping[str, int], path: str, weight_paths: Collection[str]) -> None:
    """Refuse an index of shards that is missing, or names a file that is not among the component's weight files.

    The index is what loaders follow, so an entry such as ``../../x`` would be read from outside the folder.
    """
    if path not in files:
        raise ModelLoadError(f"{source.reference} has weights in shards, but not their {path}", "download it again")
    weight_map = read_json(source, path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ModelLoadError(f"{path} of {source.reference} has no usable weight_map", "download the model again")
    folder = path.rpartition("/")[0]
    missing = sorted({shard for shard in weight_map.values() if f"{folder}/{shard}" not in weight_paths})
    if missing:
        raise ModelLoadError(
            f"{path} of {source.reference} names weight files that are not there: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}",
            "download the model again",
        )
