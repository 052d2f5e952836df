"""What plugin authors test with: a bare manager, an engine that costs nothing, tiny models, contract suites."""

from .contracts import check_execution_backend, check_media_encoder, check_model_resolver, check_pipeline_transform
from .managers import bare_manager, make_settings
from .models import MemoryResolver, MemorySource, tiny_pipeline_files, write_tiny_pipeline
from .no_op import NoOpBackend, NoOpPipeline, no_op_plugin

__all__ = [
    "MemoryResolver",
    "MemorySource",
    "NoOpBackend",
    "NoOpPipeline",
    "bare_manager",
    "check_execution_backend",
    "check_media_encoder",
    "check_model_resolver",
    "check_pipeline_transform",
    "make_settings",
    "no_op_plugin",
    "tiny_pipeline_files",
    "write_tiny_pipeline",
]
