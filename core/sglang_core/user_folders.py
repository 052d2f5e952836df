"""Where files of a user are kept."""

from collections.abc import Mapping
from pathlib import Path


def user_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder of a user's caches, by the XDG base directory specification."""
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def diffusion_cache(environ: Mapping[str, str]) -> Path:
    """Return the root of what is cached for diffusion: ``SGLANG_DIFFUSION_CACHE_ROOT``, or a folder of its own."""
    root = environ.get("SGLANG_DIFFUSION_CACHE_ROOT")
    return Path(root).expanduser() if root else user_cache(environ) / "sgl_diffusion"
