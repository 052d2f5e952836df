"""Calling code of plugins: whatever it raises becomes one sentence with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import SglangError

#: Ends a remedy where only the traceback tells more.
DEBUG_HINT = "run again with SGLANG_DEBUG=1 to see where it failed"


@contextmanager
def translated(
    what: str, kind: type[SglangError], remedy: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn an exception of the body into a ``kind``; errors with a remedy pass, and so do those of ``passing``."""
    try:
        yield
    except SglangError:
        raise
    except passing:
        raise
    except Exception as error:  # foreign code may raise anything
        text = str(error).strip().splitlines()
        problem = f"{what} failed: {type(error).__name__}" + (f": {text[0]}" if text else "")
        raise kind(problem, f"{remedy}, or {DEBUG_HINT}") from error
