"""Weight files by their headers: sizes and dtypes without reading a weight.

Source: the safetensors format, an 8-byte little-endian length, a JSON header, the tensors.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from .errors import ModelLoadError

if TYPE_CHECKING:
    from .models import ModelSource

#: Bytes per value of the safetensors dtypes; a dtype that is not here is counted, but not checked.
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
_DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
_LARGEST_HEADER_BYTES = 100 * 2**20


@frozen(kw_only=True)
class WeightFile:
    """One weight file as its header describes it. Pickled formats tell their size only."""

    path: str
    num_bytes: int
    #: Dtype and number of values of each stored tensor.
    values_by_name: Mapping[str, tuple[str, int]] = field(factory=dict, repr=False)
    #: The shape of each stored tensor, and what the header says beside them.
    shapes_by_name: Mapping[str, tuple[int, ...]] = field(factory=dict, repr=False)
    metadata: Mapping[str, str] = field(factory=dict, repr=False)

    @property
    def parameters_by_dtype(self) -> Mapping[str, int]:
        """Return the number of values by dtype."""
        counts: dict[str, int] = {}
        for dtype, count in self.values_by_name.values():
            counts[dtype] = counts.get(dtype, 0) + count
        return counts

    @property
    def num_parameters(self) -> int:
        """Return the number of values stored."""
        return sum(count for _, count in self.values_by_name.values())


def read_weight_file(source: "ModelSource", path: str, num_bytes: int) -> WeightFile:
    """Describe a weight file of a model.

    :raises ModelLoadError: if a safetensors file is truncated or its header is damaged.
    """
    if not path.endswith(".safetensors"):
        return WeightFile(path=path, num_bytes=num_bytes)
    try:
        header, start = _read_header(source, path, num_bytes)
        metadata = _texts(header.pop("__metadata__", None))
        values = _count_values(header, start, num_bytes)
    except (ValueError, RecursionError, struct.error) as error:
        raise ModelLoadError(
            f"weight file {path} of {source.reference} is truncated or damaged: {error}", "download the file again"
        ) from error
    shapes = {name: tuple(header[name]["shape"]) for name in values}
    return WeightFile(path=path, num_bytes=num_bytes, values_by_name=values, shapes_by_name=shapes, metadata=metadata)


def _texts(value: object) -> dict[str, str]:
    """Return what a header says beside its tensors: texts by name, and nothing that is none."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in entries if isinstance(text, str)}


def _read_header(source: "ModelSource", path: str, num_bytes: int) -> tuple[dict[str, Any], int]:
    """Return the tensors of the header and the offset of the first value; raise ``ValueError`` for anything odd."""
    if num_bytes < 8:
        raise ValueError(f"it has {num_bytes} bytes, less than the length of a header")
    (length,) = struct.unpack("<Q", source.read(path, 0, 8))
    if length > num_bytes - 8:
        raise ValueError(f"its header of {length:,} bytes is longer than the file of {num_bytes:,}")
    if length > _LARGEST_HEADER_BYTES:
        raise ValueError(f"its header of {length:,} bytes is longer than the format allows")
    header = json.loads(source.read(path, 8, length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _count_values(header: Mapping[str, Any], start: int, num_bytes: int) -> dict[str, tuple[str, int]]:
    """Return dtype and number of values by name, after checking that the header describes exactly this file."""
    values: dict[str, tuple[str, int]] = {}
    end = 0
    for name, entry in header.items():
        dtype, num_values, tensor_end = _check_tensor(name, entry)
        values[name] = (_DTYPE_NAMES.get(dtype, dtype.lower()), num_values)
        end = max(end, tensor_end)
    if start + end != num_bytes:
        raise ValueError(f"{start + end:,} bytes are described, {num_bytes:,} are there")
    return values


def _check_tensor(name: str, entry: object) -> tuple[str, int, int]:
    """Return dtype, number of values and end offset of one tensor."""
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {name!r} has no description")
    dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} lacks a usable dtype, shape or position")
    num_values, num_bytes = math.prod(shape), offsets[1] - offsets[0]
    if num_bytes < 0 or (dtype in DTYPE_BYTES and num_bytes != num_values * DTYPE_BYTES[dtype]):
        raise ValueError(f"tensor {name!r} of shape {shape} and type {dtype} can not take {num_bytes:,} bytes")
    return dtype, num_values, offsets[1]


def _sizes(value: object) -> list[int] | None:
    """Return a JSON list of counts, else ``None``. JSON's true and false are ints to Python, hence the exact type."""
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return value
    return None
