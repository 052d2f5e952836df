"""The process of the ``sglang`` command: what the console script runs, and how it is left."""

import atexit
import gc
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

from .app import main

_BUFFERED = frozenset({io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom})


def run() -> NoReturn:
    """Run the command line as this process, and end it.

    For the console script and ``python -m`` only: a program that does more than this command calls
    :func:`~sglang_core.cli.main`, after which the interpreter ends as usual.
    """
    try:
        main()
    except SystemExit as stopped:
        if "torch" in sys.modules and isinstance(stopped.code, int):
            atexit.register(_leave, stopped.code)
        raise
    sys.exit(0)


def _leave(code: int) -> None:
    """End the process without taking the interpreter apart.

    Freeing the millions of objects that torch and the models' libraries made takes a sixth of a short run, and gives
    nothing that the end of the process does not. Being the exit handler registered last, this runs first: threads that
    are no daemons have ended by then. Everybody else's handlers run from here (temporary folders, executors, logging,
    coverage), then what is buffered is written. Where that fails, the interpreter ends as usual and says so.
    """
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    with suppress(OSError):
        _flush_open_files()
        os._exit(code)


def _flush_open_files() -> None:
    """Write what is buffered for the standard streams, and for files that nobody closed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    for stream in [thing for thing in gc.get_objects() if type(thing) in _BUFFERED]:
        with suppress(ValueError):  # closed, or detached from its file
            stream.flush()
