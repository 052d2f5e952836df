"""The request values that a model folder recommends, in its ``sglang.json``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import ModelLoadError

if TYPE_CHECKING:
    from .models import ModelSource

#: Recommended request values beside ``model_index.json``. Keys that are no request values are notes of the author.
SAMPLING_FILE = "sglang.json"
#: What may be recommended, with its JSON types.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "width": (int,),
    "height": (int,),
    "num_frames": (int,),
    "fps": (int,),
    "num_inference_steps": (int,),
    "guidance_scale": (int, float),
    "guidance_scale_2": (int, float),
    "true_cfg_scale": (int, float),
    "negative_prompt": (str,),
}
_MUST_BE_POSITIVE = frozenset({"width", "height", "num_frames", "fps", "num_inference_steps"})


def read_sampling_values(source: "ModelSource") -> dict[str, Any] | None:
    """Return the request values of the model's ``sglang.json``, or ``None`` if it has no such file.

    :raises ModelLoadError: if the file is not a JSON object, or a value has the wrong type.
    """
    from .models import read_json

    if SAMPLING_FILE not in source.files():
        return None
    notes = read_json(source, SAMPLING_FILE)
    return {key: _checked(source, key, notes[key]) for key in _TYPES if notes.get(key) is not None}


def _checked(source: "ModelSource", key: str, value: Any) -> Any:
    is_right = type(value) in _TYPES[key]  # exact: JSON's true is an int to Python
    if not is_right or (key in _MUST_BE_POSITIVE and value < 1):
        raise ModelLoadError(
            f"{key} in {SAMPLING_FILE} of {source.reference} can not be {value!r}",
            f"correct or remove {key} in that file",
        )
    return value
