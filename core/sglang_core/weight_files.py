"""Which files of a component folder are its weights."""

import re
from collections.abc import Collection, Iterable

WEIGHT_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf"),
    *(".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".tflite", ".ot", ".xml"),
)
#: The file names that loaders look for, less shard number and suffix; others (``consolidated``) are copies.
_LOADED_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SHARD = re.compile(r"-\d+-of-\d+\Z")


def is_weight_file(path: str) -> bool:
    """Say whether a path looks like weights, in any format."""
    return path.endswith(WEIGHT_SUFFIXES)


def choose_weight_files(paths: Collection[str]) -> list[str]:
    """Choose one set of weight files of a component, given the files that lie directly in its folder.

    The set is what loaders read: safetensors before pickles (``.bin``), the usual file name before others, one file
    or its shards but not both. A variant (``model.fp16.safetensors``) is taken only where nothing else is there.
    Other formats (Flax, ONNX, ...) are never chosen.
    """
    for suffix in (".safetensors", ".bin"):
        sets = _sets_by_stem(path for path in sorted(paths) if path.endswith(suffix))
        if sets:
            return sets[min(sets, key=_preference)]
    return []


def shard_index_of(weight_paths: Collection[str]) -> str | None:
    """Return the path of the index that belongs to a set of shards, ``None`` for a single file."""
    for path in weight_paths:
        stem, _, suffix = path.rpartition(".")
        if _SHARD.search(stem):
            name, variant = _split_variant(_SHARD.sub("", stem))
            return f"{name}.{suffix}.index{f'.{variant}' if variant else ''}.json"
    return None


_StemKey = tuple[str, str | None, bool]


def _sets_by_stem(paths: Iterable[str]) -> dict[_StemKey, list[str]]:
    """Group weight files by name, variant and whether they are shards."""
    sets: dict[_StemKey, list[str]] = {}
    for path in paths:
        stem = path.rpartition("/")[2].rpartition(".")[0]
        name, variant = _split_variant(_SHARD.sub("", stem))
        sets.setdefault((name, variant, bool(_SHARD.search(stem))), []).append(path)
    return sets


def _split_variant(stem: str) -> tuple[str, str | None]:
    """Split ``unet/model.fp16`` into ``unet/model`` and ``fp16``."""
    folder, slash, name = stem.rpartition("/")
    name, dot, variant = name.partition(".")
    return folder + slash + name, variant if dot else None


def _preference(key: _StemKey) -> tuple[bool, int, bool, _StemKey]:
    """Order sets of files as loaders do: no variant, usual name, a single file."""
    name, variant, is_sharded = key
    rank = _LOADED_STEMS.index(name) if name in _LOADED_STEMS else len(_LOADED_STEMS)
    return variant is not None, rank, is_sharded, (name, variant or "", is_sharded)
