"""The control of a run in the process that holds the model: it tells that it is alive, and lets a small work in."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .control import StepControl
from .peak_memory import PeakMemory

#: Runs a whole work.
RunWork = Callable[[], None]

_SIGN_OF_LIFE_S = 1.0


class RankControl(StepControl):
    """A control that says now and then that its run is alive, also where no step ends for long.

    :param on_life: called at a boundary, at most once a second.
    :param interjected: asked at every boundary for a work that is to run there, in the middle of this run; ``None``
        where there can be none.
    """

    def __init__(
        self,
        *args: Any,
        on_life: Callable[[], None],
        interjected: Callable[[], RunWork | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        #: What this run takes, from now on.
        self.memory = PeakMemory()
        self._on_life = on_life
        self._told_s = time.monotonic()
        self._interjected = interjected
        self._thread = threading.get_ident()

    def check(self) -> None:
        """Stop here if that was asked for; else say that all is well, and let a work in that waits to run here."""
        super().check()
        now = time.monotonic()
        if now - self._told_s > _SIGN_OF_LIFE_S:
            self._told_s = now
            self._on_life()
        if self._interjected is None or threading.get_ident() != self._thread:  # a thread beside the run is no place
            return
        run = self._interjected()
        if run is not None:
            self._let_in(run)
            super().check()  # it may have been cancelled meanwhile

    def _let_in(self, run: RunWork) -> None:
        self.memory.pause()
        try:
            with self.paused(), _as_outside_of_a_run():
                run()
        finally:
            self.memory.resume()


@contextmanager
def _as_outside_of_a_run() -> Iterator[None]:
    """Undo for the body that torch makes tensors for inference only, as pipelines have it while they run."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.inference_mode(False):
        yield
