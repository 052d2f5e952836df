"""What is asked for, what is made, and what comes back."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, field, frozen

if TYPE_CHECKING:
    import numpy

MediaKind = Literal["image", "video"]

#: The fields of a request, beside the prompt, that a model's call may take as they are, perhaps under a spelling of its
#: own (``CallDescription.spellings``). Each is a sampling setting of the same name.
CALL_FIELDS = (
    "negative_prompt",
    "width",
    "height",
    "num_frames",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "strength",
)


@frozen(kw_only=True)
class GenerationRequest:
    """One picture or clip to make.

    ``None`` means that the model's own default is used; planning replaces it, so that a planned request
    holds every value that the pipeline is called with.
    """

    prompt: str
    negative_prompt: str | None = None
    #: Local files, ``http(s)`` or ``data:`` URLs of the images to start from.
    image_path: tuple[str, ...] = ()
    #: Which part of the image to paint anew: see :func:`sglang_core.load_mask`.
    mask_path: str | None = None
    seed: int = 42
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    true_cfg_scale: float | None = None
    #: How far from the image, in (0, 1]: 1 is all the way.
    strength: float | None = None
    #: Pipeline-specific call arguments, passed as they are.
    extra: Mapping[str, Any] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON values, without what is unset."""
        values = asdict(self)
        values["image_path"] = list(self.image_path)
        return {name: value for name, value in values.items() if value not in (None, [], {})}


@frozen(kw_only=True)
class GeneratedMedia:
    """The frames (and sound) of one output, in host memory.

    ``frames`` is a uint8 array of shape (frames, height, width, channels) with 3 (RGB) or 4 (RGBA) channels; an
    image has one frame. ``audio`` is a float32 array of shape (channels, samples) in [-1, 1].
    """

    kind: MediaKind
    frames: "numpy.ndarray[Any, Any]"
    fps: float | None = None
    audio: "numpy.ndarray[Any, Any] | None" = None
    sample_rate_hz: int | None = None

    @property
    def num_frames(self) -> int:
        """Return the number of frames."""
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return int(self.frames.shape[2]), int(self.frames.shape[1])


@frozen(kw_only=True)
class GenerationOutput:
    """One finished output: where it is, and what it was made of."""

    prompt: str
    seed: int
    kind: MediaKind
    width: int
    height: int
    num_frames: int
    #: ``None`` when saving was switched off, or the file was uploaded and deleted here.
    path: Path | None
    #: The frames, when ``return_frames`` asked for them: see :class:`GeneratedMedia`.
    media: GeneratedMedia | None = None
    receipt: Mapping[str, Any] = field(factory=dict)
    #: Where a storage uploader put it; ``object_key`` is its name there.
    url: str | None = None
    object_key: str | None = None
    #: Why it is not uploaded although that was asked for; the file is still at ``path`` then.
    upload_error: str | None = None


@frozen(kw_only=True)
class GenerationResult:
    """All outputs of one run and its timings.

    ``timings_s`` holds the seconds of each stage, summed over the outputs; ``duration_s`` is the whole run.
    """

    outputs: tuple[GenerationOutput, ...]
    duration_s: float
    timings_s: Mapping[str, float] = field(factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that were written."""
        return tuple(output.path for output in self.outputs if output.path is not None)
