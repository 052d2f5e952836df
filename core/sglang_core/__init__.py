"""The host of SGLang's diffusion plugins: what a plugin may add, and how a request becomes a file."""

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
from .folder_source import FolderSource
from .generation import create_control, generate_outputs
from .generator import Generator
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
from .planning import installed_versions, plan_run
from .planning_report import plan_lines
from .plugins import PluginManager, PluginRecord, create_plugin_manager
from .receipts import read_receipt, settings_from_receipt, version_differences
from .planning_types import Choice, ComponentPlan, ExecutionPlan, MemoryEstimate, OutputPlan
from .registry import Availability, Registry, closest
from .requests import GeneratedMedia, GenerationOutput, GenerationRequest, GenerationResult, MediaKind
from .sampling_values import SAMPLING_FILE, read_sampling_values
from .weight_files import choose_weight_files
