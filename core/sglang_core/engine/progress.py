"""From the events of stages to one number between 0 and 1."""

from ..events import Event, OutputSaved, StageEnded, StageStarted, StepDone

#: Where denoising begins and ends within one output; decoding, what comes after it, and saving share the rest.
_BEFORE, _AFTER = 0.03, 0.9
#: How much of what is left a stage of unknown length takes when it ends.
_SHARE_OF_REST = 0.5


class ProgressMeter:
    """Follows the events of a run of several outputs, made one after the other."""

    def __init__(self, num_outputs: int) -> None:
        self._num_outputs = max(1, num_outputs)
        self._num_done = 0
        self._within = 0.0
        self.progress = 0.0

    def update(self, event: Event) -> float:
        """Take an event in and return the progress; it never falls."""
        if isinstance(event, OutputSaved):
            self._num_done += 1
            self._within = 0.0
        elif isinstance(event, StepDone) and event.stage == "denoise" and event.total:
            self._advance(_BEFORE + (_AFTER - _BEFORE) * min(1.0, event.index / event.total))
        elif isinstance(event, StepDone) and event.total and event.unit == "step" and self._within >= _AFTER:
            self._advance(_AFTER + (0.99 - _AFTER) * min(1.0, event.index / event.total))
        elif isinstance(event, StageStarted) and event.stage == "denoise":
            self._advance(_BEFORE)
        elif isinstance(event, StageEnded) and event.stage == "denoise" and event.ok:
            self._advance(_AFTER)
        elif isinstance(event, StageEnded) and self._within >= _AFTER:
            self._advance(self._within + (0.99 - self._within) * _SHARE_OF_REST)
        self.progress = max(self.progress, min(1.0, (self._num_done + self._within) / self._num_outputs))
        return self.progress

    def _advance(self, within: float) -> None:
        self._within = max(self._within, min(within, 0.99))
