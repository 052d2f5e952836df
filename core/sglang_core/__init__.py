"""The host of SGLang's diffusion plugins: what a plugin may add, and how a request becomes a file."""

import importlib
import typing

from .backends import CallDescription, ExecutionBackend, LoadedPipeline, PipelineTransform
from .checks import Check, CheckResult, CheckStatus
from .cli import SettingsCommand, cancel_on_signals, pass_settings
from .engine import StepControl, describe_timings
from .errors import (
    ConfigError,
    DeadlineExceededError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfDeviceMemoryError,
    OutputError,
    PluginError,
    RequestCancelledError,
    RequestError,
    SglangError,
    UnavailableError,
)
from .events import Event, OutputSaved, RunEnded, RunStarted, StageEnded, StageStarted, StepDone
from .hookspecs import hookimpl
from .media import EncodingOptions, MediaEncoder, Receipt
from .models import (
    ComponentDescription,
    ModelDescription,
    ModelReference,
    ModelResolver,
    ModelSource,
    ProgressCallback,
    describe_model,
    read_json,
)
from .options import OptionField, OptionGroup, Origin, Settings, option
from .options.host import (
    CallOptions,
    ExecutionOptions,
    ModelOptions,
    OffloadOptions,
    OutputOptions,
    RunOptions,
    SamplingOptions,
)
from .planning_types import Choice, ComponentPlan, ExecutionPlan, MemoryEstimate, OutputPlan
from .plugins import PluginManager, PluginRecord, create_plugin_manager
from .registry import Availability, Registry, closest
from .requests import GeneratedMedia, GenerationOutput, GenerationRequest, GenerationResult, MediaKind

if typing.TYPE_CHECKING:
    from .fetcher import FetchLimits, fetch, load_input, shown_reference
    from .folder_source import FolderSource
    from .generation import create_control, generate_outputs
    from .generator import Generator
    from .planning import installed_versions, plan_run
    from .planning_report import plan_lines
    from .receipts import read_receipt, settings_from_receipt, version_differences
    from .sampling_values import SAMPLING_FILE, read_sampling_values
    from .weight_files import choose_weight_files

__all__ = [
    "SAMPLING_FILE",
    "Availability",
    "CallDescription",
    "CallOptions",
    "Check",
    "CheckResult",
    "CheckStatus",
    "Choice",
    "ComponentDescription",
    "ComponentPlan",
    "ConfigError",
    "DeadlineExceededError",
    "EncodingOptions",
    "Event",
    "ExecutionBackend",
    "ExecutionOptions",
    "ExecutionPlan",
    "FetchLimits",
    "FolderSource",
    "GeneratedMedia",
    "GenerationOutput",
    "GenerationRequest",
    "GenerationResult",
    "Generator",
    "LoadedPipeline",
    "MediaEncoder",
    "MediaKind",
    "MemoryEstimate",
    "ModelDescription",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelOptions",
    "ModelReference",
    "ModelResolver",
    "ModelSource",
    "OffloadOptions",
    "OptionField",
    "OptionGroup",
    "Origin",
    "OutOfDeviceMemoryError",
    "OutputError",
    "OutputOptions",
    "OutputPlan",
    "OutputSaved",
    "PipelineTransform",
    "PluginError",
    "PluginManager",
    "PluginRecord",
    "ProgressCallback",
    "Receipt",
    "Registry",
    "RequestCancelledError",
    "RequestError",
    "RunEnded",
    "RunOptions",
    "RunStarted",
    "SamplingOptions",
    "Settings",
    "SettingsCommand",
    "SglangError",
    "StageEnded",
    "StageStarted",
    "StepControl",
    "StepDone",
    "UnavailableError",
    "cancel_on_signals",
    "choose_weight_files",
    "closest",
    "create_control",
    "create_plugin_manager",
    "describe_model",
    "describe_timings",
    "fetch",
    "generate_outputs",
    "hookimpl",
    "installed_versions",
    "load_input",
    "option",
    "pass_settings",
    "plan_lines",
    "plan_run",
    "read_json",
    "read_receipt",
    "read_sampling_values",
    "settings_from_receipt",
    "shown_reference",
    "version_differences",
]

#: Names whose modules are imported when they are first used, so that ``--help`` does not pay for them.
_LAZY = {
    "FetchLimits": "fetcher",
    "FolderSource": "folder_source",
    "Generator": "generator",
    "SAMPLING_FILE": "sampling_values",
    "choose_weight_files": "weight_files",
    "create_control": "generation",
    "fetch": "fetcher",
    "generate_outputs": "generation",
    "installed_versions": "planning",
    "load_input": "fetcher",
    "plan_lines": "planning_report",
    "plan_run": "planning",
    "read_receipt": "receipts",
    "read_sampling_values": "sampling_values",
    "settings_from_receipt": "receipts",
    "shown_reference": "fetcher",
    "version_differences": "receipts",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
