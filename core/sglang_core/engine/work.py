"""What the server asks of the ranks, and what it is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, field, frozen

from ..jobs.records import JobError, JobOutput

#: Keys of :attr:`WorkItem.settings` that are no settings of planning: they wish for pictures between two steps.
PREVIEW_SETTINGS = ("preview_every", "num_previews")


@frozen(kw_only=True)
class WorkItem:
    """One request: its settings by name (``prompt``, ``seed``, ``width``, ...).

    ``num_previews`` asks for so many previews, spread over the steps, ``preview_every`` for one every so many steps.
    Of ``output_file_name`` only the extension counts, as the format: the files are called by ``id``.
    """

    id: str
    settings: Mapping[str, Any]


@frozen(kw_only=True)
class Work:
    """What runs at one time: one item, or several that are compatible (:func:`~.batching.batch_key`).

    Outputs are written to ``folder``, each whole or not at all.
    """

    items: tuple[WorkItem, ...]
    folder: Path


@frozen(kw_only=True)
class ItemResult:
    """How an item ended: with outputs, with an error, cancelled, or lost.

    ``is_lost`` says that the ranks ended before the item did, so that another attempt may be made; ``error`` then says
    why. ``has_begun`` is false if it had not begun: the loss is not its fault. Of a failed item the outputs that were
    complete are told.
    """

    id: str
    outputs: tuple[JobOutput, ...] = ()
    error: JobError | None = None
    is_cancelled: bool = False
    is_lost: bool = False
    has_begun: bool = True
    timings_s: Mapping[str, float] = field(factory=dict)
    #: Seconds in which it stood still for works in its middle; they are in none of the timings.
    paused_s: float = 0.0
    #: Of the device if it has a memory of its own, else of the process.
    peak_memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; :func:`result_from_json` reads it back."""
        return asdict(self)


@frozen(kw_only=True)
class ItemEvent:
    """How far an item is: step ``index`` of ``total`` of a stage is done (0: the stage begins).

    ``progress`` goes from 0 to 1 over the whole item and only grows. ``preview_png`` is set where a preview was made.
    """

    id: str
    stage: str
    index: int
    total: int | None
    unit: str
    progress: float
    preview_png: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON values, without the preview."""
        return asdict(evolve(self, preview_png=None))


def result_from_json(values: Mapping[str, Any]) -> ItemResult:
    """Return the result that :meth:`ItemResult.to_json` described."""
    fields = dict(values)
    fields["outputs"] = tuple(JobOutput(**output) for output in fields["outputs"])
    fields["error"] = None if fields["error"] is None else JobError(**fields["error"])
    return ItemResult(**fields)
