"""What plugin authors test with: a bare manager, an engine that costs nothing, tiny models, contract suites."""

from .attention_contract import check_attention_backend
from .contracts import check_execution_backend, check_media_encoder, check_model_resolver, check_pipeline_transform
from .job_store_contract import check_job_store
from .managers import bare_manager, make_settings
from .models import MemoryResolver, MemorySource, tiny_pipeline_files, write_tiny_pipeline
from .no_op import NoOpBackend, NoOpPipeline, no_op_plugin
from .storage_contract import check_storage_uploader
from .storages import MemoryStorage, MemoryUploader, memory_storage_plugin

__all__ = [
    "MemoryResolver",
    "MemorySource",
    "MemoryStorage",
    "MemoryUploader",
    "NoOpBackend",
    "NoOpPipeline",
    "bare_manager",
    "check_attention_backend",
    "check_execution_backend",
    "check_job_store",
    "check_media_encoder",
    "check_model_resolver",
    "check_pipeline_transform",
    "check_storage_uploader",
    "make_settings",
    "memory_storage_plugin",
    "no_op_plugin",
    "tiny_pipeline_files",
    "write_tiny_pipeline",
]
