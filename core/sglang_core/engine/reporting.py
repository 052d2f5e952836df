"""What is told of items while they run: steps, progress and previews."""

import io
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from ..events import Event, OutputSaved, PreviewReady, StageStarted, StepDone
from .progress import ProgressMeter
from .work import ItemEvent

if TYPE_CHECKING:
    import numpy

#: A preview is made no larger than this: it is looked at for a second.
MAX_PREVIEW_SIDE = 512
_BYTES_INTERVAL_S = 0.25

Tell = Callable[[ItemEvent], None]


class Reporter:
    """Turns the events of a run into those of its items.

    :param items: id and number of outputs of each item that runs, several if they run together.
    :param wishing: the ids of those that wish for previews.
    """

    def __init__(self, items: Sequence[tuple[str, int]], tell: Tell, wishing: Collection[str] = ()) -> None:
        self._wishing = frozenset(wishing)
        self._meters = {item_id: ProgressMeter(num_outputs) for item_id, num_outputs in items}
        self._tell = tell
        self._bytes_told_s = 0.0
        self._last: StepDone | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of the run in, and tell what follows of it."""
        for meter in self._meters.values():
            if not isinstance(event, OutputSaved) or len(self._meters) == 1:
                meter.update(event)
        if isinstance(event, StageStarted):
            self._tell_step(event.stage, 0, event.total, event.unit)
        elif isinstance(event, StepDone) and self._is_due(event):
            self._tell_step(event.stage, event.index, event.total, event.unit)
        elif isinstance(event, PreviewReady):
            item_id = list(self._meters)[event.output if len(self._meters) > 1 else 0]
            if item_id in self._wishing:
                self._tell(evolve(self._event(item_id), preview_png=preview_png(event.frames)))

    def _is_due(self, event: StepDone) -> bool:
        """Say whether a step is told: every one of a loop, of bytes four in a second."""
        if event.unit != "byte" or event.index == event.total:
            return True
        now = time.monotonic()
        if now - self._bytes_told_s < _BYTES_INTERVAL_S:
            return False
        self._bytes_told_s = now
        return True

    def _tell_step(self, stage: str, index: int, total: int | None, unit: str) -> None:
        self._last = StepDone(run_id="", stage=stage, index=index, total=total, unit=unit)
        for item_id in self._meters:
            self._tell(self._event(item_id))

    def _event(self, item_id: str) -> ItemEvent:
        last = self._last
        assert last is not None, "stages begin before anything else is told"
        return ItemEvent(
            id=item_id,
            stage=last.stage,
            index=last.index,
            total=last.total,
            unit=last.unit,
            progress=self._meters[item_id].progress,
        )


def preview_png(frames: "numpy.ndarray[Any, Any]") -> bytes:
    """Return the middle frame of uint8 (frames, height, width, 3) as a small PNG."""
    from PIL import Image  # only where a preview is wished for

    picture = Image.fromarray(frames[len(frames) // 2])
    picture.thumbnail((MAX_PREVIEW_SIDE, MAX_PREVIEW_SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
