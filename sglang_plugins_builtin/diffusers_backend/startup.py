"""Importing torch, transformers and diffusers in as little time as they allow."""

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def collection_paused() -> Iterator[None]:
    """Run the body without garbage collection.

    Importing these packages makes millions of objects that live as long as the process. Walking them again and again in
    search of garbage is a fifth of the import time (6.0 s to 4.8 s on two cores). What is there at the end is frozen:
    later collections do not look at it any more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


def import_quickly(module: str) -> ModuleType:
    """Import a heavy module of this package, with everything that it needs."""
    with collection_paused():
        return importlib.import_module(f".{module}", __package__)
