"""What is measured while a command runs."""

import os
from pathlib import Path
from typing import Any

from attrs import frozen, validators

from sglang_core import ConfigError, option

#: Steps of the trace unless ``num_profiled_timesteps`` says otherwise.
DEFAULT_PROFILED_STEPS = 5


def _can_become_a_file(instance: object, attribute: Any, path: Path | None) -> None:
    """Refuse a path that cannot be written, before anything is made."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not the name of a file")
    _can_become_a_folder(instance, attribute, path.parent)


def _can_become_a_folder(instance: object, attribute: Any, path: Path | None) -> None:
    if path is None:
        return
    nearest = next((folder for folder in (path, *path.parents) if folder.exists()), Path())
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} can not be written to")


@frozen(kw_only=True)
class PerformanceOptions:
    """Performance."""

    perf_dump_path: Path | None = option(
        default=None,
        metavar="FILE",
        validator=_can_become_a_file,
        help="Write the times of all stages and steps, and what was run, to this JSON file when the run ends.",
    )
    stage_logging: bool = option(
        default=False, env="SGLANG_DIFFUSION_STAGE_LOGGING", help="Log how long each stage took."
    )
    profile: bool = option(
        default=False, help="Write a trace of torch's profiler, for chrome://tracing or ui.perfetto.dev."
    )
    num_profiled_timesteps: int | None = option(
        default=None,
        validator=validators.optional(validators.ge(1)),
        help=f"Denoising steps in the trace, after one to warm up; {DEFAULT_PROFILED_STEPS} if unset.",
    )
    profile_all_stages: bool = option(
        default=False, help="Trace every stage of the first output, not some denoising steps."
    )
    torch_profiler_dir: Path = option(
        default=Path("logs"),
        env="SGLANG_TORCH_PROFILER_DIR",
        validator=_can_become_a_folder,
        help="Folder for traces.",
    )
    profile_dir: Path | None = option(
        default=None,
        env="SGLANG_DIFFUSION_TORCH_PROFILER_DIR",
        metavar="FOLDER",
        validator=_can_become_a_folder,
        help="Folder for traces too; naming it is enough to get them, without --profile.",
    )

    def __attrs_post_init__(self) -> None:
        if self.num_profiled_timesteps is not None and self.profile_all_stages:
            raise ConfigError(
                "num_profiled_timesteps and profile_all_stages exclude each other: all stages have all steps",
                "leave one of them out",
            )
        for name in ("num_profiled_timesteps", "profile_all_stages"):
            if getattr(self, name) and not self.is_profiling:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{name} does not apply: nothing is profiled", f"add --profile, or leave {flag} out")

    @property
    def is_profiling(self) -> bool:
        """Say whether a trace is wanted."""
        return self.profile or self.profile_dir is not None
