"""The staged engine: what a model family is composed of. Public: families of other packages use it too."""

from ..requests import pays_to_join, planned
from .conditioning import ConditioningCache
from .decoding import Decode
from .dtypes import dtype_of
from .encoding import EncodePrompts
from .frames import scaled, to_media, to_pixels
from .loading import HasPartsUsedOnce, HasStreamedLayers, load_components, residency_of
from .pipeline import StagedPipeline
from .residency import Residency
from .stages import BatchStage, Denoise, OptionalStage, Stage, refuse_non_finite
from .state import Predict, RunState, Schedule
from .weights import Rename, read_weights

__all__ = [
    "BatchStage",
    "ConditioningCache",
    "Decode",
    "Denoise",
    "EncodePrompts",
    "HasPartsUsedOnce",
    "HasStreamedLayers",
    "OptionalStage",
    "Predict",
    "Rename",
    "Residency",
    "RunState",
    "Schedule",
    "Stage",
    "StagedPipeline",
    "dtype_of",
    "load_components",
    "pays_to_join",
    "planned",
    "read_weights",
    "refuse_non_finite",
    "residency_of",
    "scaled",
    "to_media",
    "to_pixels",
]
