"""The host of SGLang's diffusion plugins: what a plugin may add, and how a request becomes a file."""

import importlib
import typing

from .checks import Check, CheckResult, CheckStatus
from .cli import SettingsCommand, cancel_on_signals, pass_settings
from .errors import (
    ConfigError,
    ConflictError,
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
from .hookspecs import hookimpl
from .options import OptionField, OptionGroup, Origin, Settings, option
from .options.engine import EngineOptions
from .options.host import (
    AttentionOptions,
    CallOptions,
    ExecutionOptions,
    ModelOptions,
    OffloadOptions,
    OutputOptions,
    RunOptions,
    SamplingOptions,
)
from .options.jobs import JobOptions
from .options.server import ServerOptions
from .options.storage import StorageOptions
from .plugins import PluginManager, PluginRecord, create_plugin_manager
from .registry import Availability, Registry, closest

if typing.TYPE_CHECKING:
    from .attention import Attention, AttentionBackend, AttentionCapabilities, AttentionNeed
    from .attention_choice import attention_fits, attention_of, plan_attention
    from .backends import (
        BatchingPipeline,
        CallDescription,
        ChangeablePipeline,
        ControllableTransform,
        ExecutionBackend,
        FollowingTransform,
        InterleavingPipeline,
        LoadedPipeline,
        PipelineTransform,
        TellingTransform,
    )
    from .cpu import cpu_features
    from .devices import PRECISION_BYTES, Machine, compute_capability
    from .engine import PreviewWish, StepControl, describe_timings
    from .engine.launching import Launcher, RankCommand, Ranks
    from .events import (
        Event,
        OutputSaved,
        OutputUploaded,
        PreviewReady,
        RunEnded,
        RunPaused,
        RunPlanned,
        RunResumed,
        RunStarted,
        StageEnded,
        StageStarted,
        StepDone,
    )
    from .families import AttentionOf, ModelFamily, PlannedAttention
    from .fetcher import FetchLimits, fetch, load_input, shown_reference
    from .folder_source import FolderSource
    from .foreign_code import DEBUG_HINT
    from .generation import create_control, generate_outputs
    from .generator import Generator
    from .input_images import load_images, load_mask, size_after_image
    from .jobs.events import JobEvent
    from .jobs.records import (
        NEXT_STATES,
        TERMINAL,
        Job,
        JobError,
        JobOutput,
        JobStatus,
        WebhookState,
        check_change,
        job_from_json,
    )
    from .jobs.store import JobQuery, JobStore, OpenJobStore
    from .log_lines import add_log_fields
    from .media import EncodingOptions, MediaEncoder, Receipt
    from .memory import denoiser_tokens, free_device_bytes
    from .memory_plans import (
        EstimatesMemory,
        MemoryOf,
        MemoryQuery,
        MemoryStage,
        RunMemory,
        StreamedWeights,
        loaded_bytes,
        memory_query,
        run_memory,
        streamed_weights,
    )
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
    from .options.sources import settings_from_environment
    from .out_of_memory import is_out_of_memory, out_of_memory_error, run_remedy, saving_flags, size_text
    from .planning import installed_versions, plan_run
    from .planning_report import plan_lines
    from .planning_types import AttentionPlan, Choice, ComponentPlan, ExecutionPlan, MemoryEstimate, OutputPlan
    from .receipts import read_receipt, settings_from_receipt, version_differences
    from .requests import CALL_FIELDS, GeneratedMedia, GenerationOutput, GenerationRequest, GenerationResult, MediaKind
    from .safetensors_header import WeightFile, read_weight_file
    from .sampling_values import SAMPLING_FILE, read_sampling_values
    from .server.access_log import AccessListener, AccessRecord
    from .server.auth import Access, ApiKey, requires
    from .server.context import Health, Server
    from .server.errors import ApiError
    from .server.parts import MiddlewareLayer, OpenApiPaths, RouteGroup
    from .server.run import run_server
    from .storage import OpenStorage, StorageUploader, StoredObject, UploadItem
    from .uploads import PendingUpload, open_storage, pending_uploads, upload_file, upload_pending
    from .user_folders import diffusion_cache, user_cache
    from .weight_files import choose_weight_files

__all__ = [
    "CALL_FIELDS",
    "DEBUG_HINT",
    "NEXT_STATES",
    "PRECISION_BYTES",
    "SAMPLING_FILE",
    "TERMINAL",
    "Access",
    "AccessListener",
    "AccessRecord",
    "ApiError",
    "ApiKey",
    "Attention",
    "AttentionBackend",
    "AttentionCapabilities",
    "AttentionNeed",
    "AttentionOf",
    "AttentionOptions",
    "AttentionPlan",
    "Availability",
    "BatchingPipeline",
    "CallDescription",
    "CallOptions",
    "ChangeablePipeline",
    "Check",
    "CheckResult",
    "CheckStatus",
    "Choice",
    "ComponentDescription",
    "ComponentPlan",
    "ConfigError",
    "ConflictError",
    "ControllableTransform",
    "DeadlineExceededError",
    "EncodingOptions",
    "EngineOptions",
    "EstimatesMemory",
    "Event",
    "ExecutionBackend",
    "ExecutionOptions",
    "ExecutionPlan",
    "FetchLimits",
    "FolderSource",
    "FollowingTransform",
    "GeneratedMedia",
    "GenerationOutput",
    "GenerationRequest",
    "GenerationResult",
    "Generator",
    "Health",
    "InterleavingPipeline",
    "Job",
    "JobError",
    "JobEvent",
    "JobOptions",
    "JobOutput",
    "JobQuery",
    "JobStatus",
    "JobStore",
    "Launcher",
    "LoadedPipeline",
    "Machine",
    "MediaEncoder",
    "MediaKind",
    "MemoryEstimate",
    "MemoryOf",
    "MemoryQuery",
    "MemoryStage",
    "MiddlewareLayer",
    "ModelDescription",
    "ModelFamily",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelOptions",
    "ModelReference",
    "ModelResolver",
    "ModelSource",
    "OffloadOptions",
    "OpenApiPaths",
    "OpenJobStore",
    "OpenStorage",
    "OptionField",
    "OptionGroup",
    "Origin",
    "OutOfDeviceMemoryError",
    "OutputError",
    "OutputOptions",
    "OutputPlan",
    "OutputSaved",
    "OutputUploaded",
    "PendingUpload",
    "PipelineTransform",
    "PlannedAttention",
    "PluginError",
    "PluginManager",
    "PluginRecord",
    "PreviewReady",
    "PreviewWish",
    "ProgressCallback",
    "RankCommand",
    "Ranks",
    "Receipt",
    "Registry",
    "RequestCancelledError",
    "RequestError",
    "RouteGroup",
    "RunEnded",
    "RunMemory",
    "RunOptions",
    "RunPaused",
    "RunPlanned",
    "RunResumed",
    "RunStarted",
    "SamplingOptions",
    "Server",
    "ServerOptions",
    "Settings",
    "SettingsCommand",
    "SglangError",
    "StageEnded",
    "StageStarted",
    "StepControl",
    "StepDone",
    "StorageOptions",
    "StorageUploader",
    "StoredObject",
    "StreamedWeights",
    "TellingTransform",
    "UnavailableError",
    "UploadItem",
    "WebhookState",
    "WeightFile",
    "add_log_fields",
    "attention_fits",
    "attention_of",
    "cancel_on_signals",
    "check_change",
    "choose_weight_files",
    "closest",
    "compute_capability",
    "cpu_features",
    "create_control",
    "create_plugin_manager",
    "denoiser_tokens",
    "describe_model",
    "describe_timings",
    "diffusion_cache",
    "fetch",
    "free_device_bytes",
    "generate_outputs",
    "hookimpl",
    "installed_versions",
    "is_out_of_memory",
    "job_from_json",
    "load_images",
    "load_input",
    "load_mask",
    "loaded_bytes",
    "memory_query",
    "open_storage",
    "option",
    "out_of_memory_error",
    "pass_settings",
    "pending_uploads",
    "plan_attention",
    "plan_lines",
    "plan_run",
    "read_json",
    "read_receipt",
    "read_sampling_values",
    "read_weight_file",
    "requires",
    "run_memory",
    "run_remedy",
    "run_server",
    "saving_flags",
    "settings_from_environment",
    "settings_from_receipt",
    "shown_reference",
    "size_after_image",
    "size_text",
    "streamed_weights",
    "upload_file",
    "upload_pending",
    "user_cache",
    "version_differences",
]

#: The names whose modules are imported when they are first used, so that ``--help`` does not pay for them.
_LAZY_NAMES = {
    "attention": ("Attention", "AttentionBackend", "AttentionCapabilities", "AttentionNeed"),
    "attention_choice": ("attention_fits", "attention_of", "plan_attention"),
    "backends": (
        "BatchingPipeline",
        "CallDescription",
        "ChangeablePipeline",
        "ControllableTransform",
        "ExecutionBackend",
        "FollowingTransform",
        "InterleavingPipeline",
        "LoadedPipeline",
        "PipelineTransform",
        "TellingTransform",
    ),
    "cpu": ("cpu_features",),
    "devices": ("PRECISION_BYTES", "Machine", "compute_capability"),
    "engine": ("PreviewWish", "StepControl", "describe_timings"),
    "engine.launching": ("Launcher", "RankCommand", "Ranks"),
    "events": (
        "Event",
        "OutputSaved",
        "OutputUploaded",
        "PreviewReady",
        "RunEnded",
        "RunPaused",
        "RunPlanned",
        "RunResumed",
        "RunStarted",
        "StageEnded",
        "StageStarted",
        "StepDone",
    ),
    "families": ("AttentionOf", "ModelFamily", "PlannedAttention"),
    "fetcher": ("FetchLimits", "fetch", "load_input", "shown_reference"),
    "folder_source": ("FolderSource",),
    "foreign_code": ("DEBUG_HINT",),
    "generation": ("create_control", "generate_outputs"),
    "generator": ("Generator",),
    "input_images": ("load_images", "load_mask", "size_after_image"),
    "jobs.events": ("JobEvent",),
    "jobs.records": (
        "NEXT_STATES",
        "TERMINAL",
        "Job",
        "JobError",
        "JobOutput",
        "JobStatus",
        "WebhookState",
        "check_change",
        "job_from_json",
    ),
    "jobs.store": ("JobQuery", "JobStore", "OpenJobStore"),
    "log_lines": ("add_log_fields",),
    "media": ("EncodingOptions", "MediaEncoder", "Receipt"),
    "memory": ("denoiser_tokens", "free_device_bytes"),
    "memory_plans": (
        "EstimatesMemory",
        "MemoryOf",
        "MemoryQuery",
        "MemoryStage",
        "RunMemory",
        "StreamedWeights",
        "loaded_bytes",
        "memory_query",
        "run_memory",
        "streamed_weights",
    ),
    "models": (
        "ComponentDescription",
        "ModelDescription",
        "ModelReference",
        "ModelResolver",
        "ModelSource",
        "ProgressCallback",
        "describe_model",
        "read_json",
    ),
    "options.sources": ("settings_from_environment",),
    "out_of_memory": ("is_out_of_memory", "out_of_memory_error", "run_remedy", "saving_flags", "size_text"),
    "planning": ("installed_versions", "plan_run"),
    "planning_report": ("plan_lines",),
    "planning_types": ("AttentionPlan", "Choice", "ComponentPlan", "ExecutionPlan", "MemoryEstimate", "OutputPlan"),
    "receipts": ("read_receipt", "settings_from_receipt", "version_differences"),
    "requests": (
        "CALL_FIELDS",
        "GeneratedMedia",
        "GenerationOutput",
        "GenerationRequest",
        "GenerationResult",
        "MediaKind",
    ),
    "safetensors_header": ("WeightFile", "read_weight_file"),
    "sampling_values": ("SAMPLING_FILE", "read_sampling_values"),
    "server.access_log": ("AccessListener", "AccessRecord"),
    "server.auth": ("Access", "ApiKey", "requires"),
    "server.context": ("Health", "Server"),
    "server.errors": ("ApiError",),
    "server.parts": ("MiddlewareLayer", "OpenApiPaths", "RouteGroup"),
    "server.run": ("run_server",),
    "storage": ("OpenStorage", "StorageUploader", "StoredObject", "UploadItem"),
    "uploads": ("PendingUpload", "open_storage", "pending_uploads", "upload_file", "upload_pending"),
    "user_folders": ("diffusion_cache", "user_cache"),
    "weight_files": ("choose_weight_files",),
}
_MODULE_OF = {name: module for module, names in _LAZY_NAMES.items() for name in names}

if not typing.TYPE_CHECKING:  # a type checker has the names from the imports above, and should miss those that are not

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value
