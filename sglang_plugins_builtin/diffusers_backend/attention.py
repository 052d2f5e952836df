"""Attention backends of diffusers: their names, what they need, and whether that is here. Nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from typing import TYPE_CHECKING

from sglang_core import (
    AttentionOptions,
    AttentionPlan,
    Availability,
    Choice,
    ConfigError,
    ModelOptions,
    UnavailableError,
    closest,
)

from .config import DiffusersOptions
from .pipeline_code import diffusers_folder

if TYPE_CHECKING:
    from sglang_core import ModelDescription, Settings

#: How diffusers calls what the native backend has under another name.
_TRANSLATIONS = {
    "torch_sdpa": "native",
    "sdpa": "native",
    "torch_cudnn_sdpa": "_native_cudnn",
    "cudnn_sdpa": "_native_cudnn",
    "reference": "_native_math",
    "fa": "flash",
    "flash_attn": "flash",
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
_RUNS_ON_CPU = frozenset({"native", "flex", "_native_math", "_native_flash"})
#: What diffusers itself reads.
ENVIRONMENT_VARIABLE = "DIFFUSERS_ATTN_BACKEND"


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


def attention_setting(settings: Settings) -> tuple[str, str] | None:
    """Return the name that was asked for, in the spelling of diffusers, and the setting that did.

    ``attention_backend`` may be given in the words of the native backend, ``diffusers_attention_backend`` only in those
    of diffusers.

    :raises ConfigError: if both are given and differ.
    :raises UnavailableError: if diffusers has nothing of that name.
    """
    own = settings.of(DiffusersOptions).diffusers_attention_backend
    shared = settings.of(AttentionOptions).attention_backend
    own_label, label = (settings.origin(name).label for name in ("diffusers_attention_backend", "attention_backend"))
    if shared is None:
        return None if own is None else (own, own_label)
    name = translated(shared, label)
    if own is not None and own != name:
        raise ConfigError(f"{label} {shared} and {own_label} {own} contradict each other", "leave one of them out")
    return name, f"{label} {shared}" if name != shared else label


def translated(name: str, label: str) -> str:
    """Return the name of diffusers for a name of either vocabulary.

    :raises UnavailableError: if diffusers has nothing of that name.
    """
    spelled = name.strip().lower()
    if spelled in attention_names():
        return spelled
    if spelled in _TRANSLATIONS:
        return _TRANSLATIONS[spelled]
    known = (*attention_names(), *_TRANSLATIONS)
    close = closest(spelled, known)
    raise UnavailableError(
        f"{label}: diffusers has no attention backend {name!r}",
        f"use {close!r}" if close else "use --backend sglang where the model allows it, or 'native'",
    )


def plan_diffusers_attention(model: ModelDescription, settings: Settings, device: str) -> AttentionPlan:
    """Return the attention backends of a plan: the one of all denoisers, and those of single components.

    :raises ConfigError: for a component that the model does not have, or a role.
    :raises UnavailableError: if one that was asked for does not run on ``device``.
    """
    default = _default(settings, device)
    by_role = {}
    label = settings.origin("component_attention_backends").label
    is_trusted = settings.of(ModelOptions).trust_remote_code
    for component, wanted in settings.of(AttentionOptions).component_attention_backends.items():
        _refuse_component(model, component, label)
        name = translated(wanted, f"{label}: {component}")
        answer = probe_attention(name, is_trusted)
        if not answer.is_available:
            raise UnavailableError(f"{label}: {component}: {answer.reason}", answer.remedy)
        _refuse_on_cpu(name, device, f"{label}: {component} {wanted}")
        by_role[component] = Choice(value=name, reason=label, is_automatic=False)
    if "transformer_2" in model.components and "transformer" in by_role:
        by_role.setdefault("transformer_2", by_role["transformer"])
    used = {choice.value for choice in (default, *by_role.values())}
    lossy = tuple(sorted(name for name in used if "sage" in name))
    warnings = tuple(
        f"attention backend {name} is lossy: it differs from exact attention by more than rounding" for name in lossy
    )
    return AttentionPlan(default=default, by_role=by_role, lossy=lossy, warnings=warnings)


def _default(settings: Settings, device: str) -> Choice[str]:
    wanted = attention_setting(settings)
    if wanted is not None:
        name, label = wanted
        _refuse_on_cpu(name, device, f"{label} {name}")
        return Choice(value=name, reason=label, is_automatic=False)
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if from_environment:
        return Choice(value=from_environment, reason=ENVIRONMENT_VARIABLE, is_automatic=False)
    return Choice(value="native", reason="the default of diffusers", is_automatic=True)


def _refuse_component(model: ModelDescription, component: str, label: str) -> None:
    name, dot, role = component.partition(".")
    if name not in model.components:
        close = closest(name, model.components)
        known = ", ".join(model.components)
        problem = f"{label}: {model.reference} has no component {name!r} (known: {known})"
        raise ConfigError(problem, f"use {close!r}" if close else f"use one of: {known}")
    if dot:
        raise ConfigError(
            f"{label}: backend diffusers can not choose the {role} attention of {name} alone",
            f"use {name}, without .{role}, or --backend sglang",
        )
    if model.components[name].library == "transformers":
        raise ConfigError(
            f"{label}: backend diffusers can not choose the attention of {name}, which is of transformers",
            f"leave {name} out, or use --backend sglang",
        )


def _refuse_on_cpu(name: str, device: str, label: str) -> None:
    if device == "cpu" and name not in _RUNS_ON_CPU:
        raise UnavailableError(f"{label}: it does not run on cpu", "use 'native', or another --device")
