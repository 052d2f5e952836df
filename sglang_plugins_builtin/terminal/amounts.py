"""Seconds, bytes and counts in words."""

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def seconds_text(seconds: float) -> str:
    """Return ``3.2 s`` below a minute, else ``1:05`` or ``1:02:03``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bytes_text(num_bytes: float) -> str:
    """Return a size with a decimal unit: ``412 B``, ``1.5 GB``."""
    power = 0
    while num_bytes >= 999.95 and power < len(_BYTE_UNITS) - 1:
        num_bytes /= 1000
        power += 1
    return f"{num_bytes:.1f} {_BYTE_UNITS[power]}" if power else f"{num_bytes:.0f} B"


def count_text(unit: str, done: int, total: int | None) -> str:
    """Return how far a stage is: ``12/20 steps``, ``1.2 GB/4.0 GB``, ``3 files``."""
    if unit == "byte":
        return bytes_text(done) if total is None else f"{bytes_text(done)}/{bytes_text(total)}"
    plural = unit if (done if total is None else total) == 1 else f"{unit}s"
    return f"{done} {plural}" if total is None else f"{done}/{total} {plural}"


def amount_text(unit: str, amount: int) -> str:
    """Return a finished amount: ``20 steps``, ``1 file``, ``4.0 GB``."""
    return count_text(unit, amount, None)
