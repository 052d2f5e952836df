"""The most memory that a run took."""

import resource
import sys
from pathlib import Path


class PeakMemory:
    """The peak of one run, from now on, while others may run in its middle and are measured for themselves."""

    def __init__(self) -> None:
        self._peak: int | None = None
        reset_peak_memory()

    def pause(self) -> None:
        """Keep what there was so far: something else begins to be measured."""
        self._peak = self.num_bytes

    def resume(self) -> None:
        """Go on measuring."""
        reset_peak_memory()

    @property
    def num_bytes(self) -> int | None:
        """Return the peak so far."""
        peaks = [peak for peak in (self._peak, peak_memory_bytes()) if peak is not None]
        return max(peaks, default=None)


def reset_peak_memory() -> None:
    """Begin to measure anew, as far as this system can."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: resets VmHWM and nothing else
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """Return the peak since :func:`reset_peak_memory`: of the device if it has its own memory, else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: the peak since the process began is all there is
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
