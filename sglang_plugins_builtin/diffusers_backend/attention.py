"""Attention backends of diffusers: their names, what they need, and whether that is here. Nothing heavy is imported."""

import importlib.util
import os
import re
from functools import cache

from sglang_core import Availability, Choice, ConfigError, Settings, UnavailableError, closest

from .config import DiffusersOptions
from .pipeline_code import diffusers_folder

#: How diffusers calls what the native backend has under another name.
_TRANSLATIONS = {
    "torch_sdpa": "native",
    "torch_cudnn_sdpa": "_native_cudnn",
    "fa": "flash",
    "fa2": "flash",
    "fa3": "_flash_3_hub",
    "fa4": "flash_4_hub",
    "sage_attn": "sage",
    "sage_attn_3": "sage_blackwell_hub",
    "aiter": "aiter_fa2_hub",
}
#: Package (import name, what to install) by the beginning of the name; the first that fits counts.
_PACKAGES = (
    ("_native_npu", "torch_npu", "torch_npu for your Ascend device"),
    ("_native_xla", "torch_xla", 'pip install "torch_xla>=2.2"'),
    ("_flash_3", "flash_attn_3", "build flash-attention 3 from source, or use _flash_3_hub"),
    ("_flash_varlen_3", "flash_attn_3", "build flash-attention 3 from source, or use _flash_3_varlen_hub"),
    ("flash", "flash_attn", 'pip install "flash-attn>=2.6.3"'),
    ("sage", "sageattention", 'pip install "sageattention>=2.1.1"'),
    ("_sage", "sageattention", 'pip install "sageattention>=2.1.1"'),
    ("xformers", "xformers", 'pip install "xformers>=0.0.29"'),
)
_RUNS_ANYWHERE = ("native", "flex", "_native")


@cache
def attention_names() -> tuple[str, ...]:
    """Return the names that the installed diffusers knows, in its order."""
    folder = diffusers_folder()
    path = folder / "models" / "attention_dispatch.py" if folder else None
    if path is None or not path.is_file():
        return ()
    body = path.read_text(encoding="utf-8").partition("class AttentionBackendName")[2].partition("\nclass ")[0]
    return tuple(re.findall(r'^    [A-Z0-9_]+ = "(\w+)"', body, re.MULTILINE))


def probe_attention(name: str, trust_remote_code: bool) -> Availability:
    """Say whether an attention backend can work here, as far as installed packages tell.

    :raises ConfigError: if diffusers knows no such name.
    """
    names = attention_names()
    if name not in names:
        known = ", ".join(names)
        close = _TRANSLATIONS.get(name) or closest(name, names)
        remedy = f"use {close!r}" if close else f"use one of: {known}"
        raise ConfigError(f"--diffusers-attention-backend: diffusers has no {name!r} (known: {known})", remedy)
    if name.endswith("_hub"):
        return _probe_hub(name, trust_remote_code)
    for prefix, module, remedy in _PACKAGES:
        if name.startswith(prefix) and importlib.util.find_spec(module) is None:
            return Availability.no(
                f"attention backend {name!r} of diffusers needs {module}, which is not installed", remedy
            )
    return Availability.yes()


def _probe_hub(name: str, trust_remote_code: bool) -> Availability:
    if not trust_remote_code:
        return Availability.no(
            f"attention backend {name!r} downloads compiled code from the hub and runs it",
            "allow that with --trust-remote-code, or use 'native'",
        )
    if importlib.util.find_spec("kernels") is None:
        return Availability.no(
            f"attention backend {name!r} of diffusers needs kernels, which is not installed",
            'pip install "kernels>=0.12"',
        )
    return Availability.yes()


def choose_attention(settings: Settings, device: str) -> Choice[str]:
    """Return the attention backend of a plan.

    :raises UnavailableError: if the one asked for does not run on ``device``.
    """
    wanted = settings.of(DiffusersOptions).diffusers_attention_backend
    if wanted is None:
        from_environment = os.environ.get("DIFFUSERS_ATTN_BACKEND")
        if from_environment:
            return Choice(value=from_environment, reason="DIFFUSERS_ATTN_BACKEND", is_automatic=False)
        return Choice(value="native", reason="the default of diffusers", is_automatic=True)
    label = settings.origin("diffusers_attention_backend").label
    if device == "cpu" and not wanted.startswith(_RUNS_ANYWHERE):
        raise UnavailableError(f"{label} {wanted}: it does not run on cpu", "use 'native', or another --device")
    return Choice(value=wanted, reason=label, is_automatic=False)
