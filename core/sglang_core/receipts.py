"""The receipt: what an output was made of, enough to make it again.

It holds no time, path or duration, so that the same request gives the same bytes.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from .errors import ConfigError
from .media import MediaEncoder
from .options import Settings
from .options.settings import Origin
from .planning_types import ExecutionPlan
from .requests import GenerationRequest

logger = logging.getLogger(__name__)

RECEIPT_FORMAT = 1
_REQUEST_SETTINGS = tuple(field.name for field in attrs.fields(GenerationRequest) if field.name != "extra")


def make_receipt(
    plan: ExecutionPlan, request: GenerationRequest, transform_details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the receipt of one output: JSON values with a fixed order of keys.

    :param transform_details: what transforms say of what they have done, by name.
    """
    model = plan.model
    return {
        "format": RECEIPT_FORMAT,
        "request": request.to_json(),
        "model": {"reference": model.reference, "revision": model.revision, "pipeline": model.pipeline_class},
        "plan": {
            "backend": plan.backend.value,
            "device": plan.device.value,
            "attention": plan.attention.value,
            "component_attention": {key: choice.value for key, choice in sorted(plan.component_attention.items())},
            "lossy_attention": sorted(plan.lossy_attention),
            "precision": {
                name: component.precision.value
                for name, component in sorted(plan.components.items())
                if component.precision.value is not None
            },
            "transforms": [choice.value for choice in plan.transforms],
            **({"transform_details": dict(transform_details)} if transform_details else {}),
            "settings": _execution_settings(plan.settings),
        },
        "encoding": _encoding(plan),
        "versions": dict(sorted(plan.versions.items())),
    }


def _encoding(plan: ExecutionPlan) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if plan.output.compression is not None:
        values["output_compression"] = plan.output.compression
    if plan.kind == "video":
        values["x264_preset"] = plan.output.x264_preset
    return values


def _execution_settings(settings: Settings) -> dict[str, Any]:
    names = _execution_names(settings)
    return {name: value for name, value in sorted(settings.to_json().items()) if name in names}


def read_receipt(path: Path, encoders: Iterable[MediaEncoder]) -> Mapping[str, Any]:
    """Return the receipt in a file.

    :raises ConfigError: if there is no such file, its format is unknown, or it carries no receipt.
    """
    if not path.is_file():
        raise ConfigError(f"--from-file {path}: there is no such file", "give a picture or clip that sglang made")
    extension = path.suffix.lower().removeprefix(".")
    encoder = next((encoder for encoder in encoders if extension in encoder.extensions), None)
    if encoder is None:
        raise ConfigError(f"--from-file {path}: {extension or 'this'} is not a known format", "give a PNG, JPEG or MP4")
    receipt = encoder.read_receipt(path)
    if receipt is None or not isinstance(receipt.get("request"), dict):
        raise ConfigError(f"--from-file {path}: the file carries no receipt", "give a picture or clip that sglang made")
    if receipt.get("format") != RECEIPT_FORMAT:
        raise ConfigError(f"--from-file {path}: its receipt is of another format", "update sglang-plugins")
    return receipt


def settings_from_receipt(settings: Settings, receipt: Mapping[str, Any], path: Path) -> Settings:
    """Return settings that repeat the receipt's output; whatever is given otherwise wins over the receipt.

    :raises ConfigError: if the receipt holds a value that a setting does not take.
    """
    wanted = {
        name: value
        for name, value in _values_of(settings, receipt).items()
        if not settings.is_given(name) and not (name == "prompt" and settings.is_given("prompt_path"))
    }
    for name in sorted(
        _object(_object(receipt, "plan"), "settings").keys() - {f.name for _, f, _ in settings.fields()}
    ):
        logger.warning("%s was made with the setting %s, which no installed plugin has: it is left out", path, name)
    if not settings.is_given("output_file_name") and not settings.is_given("output_file_path"):
        wanted["output_file_name"] = f"{path.stem}-again{path.suffix}"  # the same format, and the original stays
    origins = {name: Origin(kind="receipt", label=f"--from-file {path} ({name})") for name in wanted}
    try:
        return settings.replace_from(origins, wanted)
    except ConfigError as error:
        raise ConfigError(error.problem, "the receipt was changed by hand: set the value yourself") from error


def _values_of(settings: Settings, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a receipt stands for, and no others.

    The file may come from anybody: it must not switch on, say, ``trust_remote_code``.
    """
    request, model, plan = (_object(receipt, name) for name in ("request", "model", "plan"))
    values: dict[str, Any] = {name: request.get(name) for name in _REQUEST_SETTINGS}
    values["diffusers_kwargs"] = request.get("extra")
    values["model_path"] = model.get("reference")
    values["revision"] = model.get("revision") if _is_commit(model.get("revision")) else None
    values["backend"] = plan.get("backend")
    values["device"] = plan.get("device")
    encoding = _object(receipt, "encoding")
    values["x264_preset"] = encoding.get("x264_preset")
    if not settings.is_given("output_quality"):
        values["output_compression"] = encoding.get("output_compression")
    execution = _object(plan, "settings")
    values.update({name: execution.get(name) for name in _execution_names(settings)})
    values["component_precisions"] = plan.get("precision")  # of every component, also those chosen automatically
    known = {field.name for _, field, _ in settings.fields()}
    return {name: value for name, value in values.items() if value is not None and name in known}


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def _execution_names(settings: Settings) -> set[str]:
    """Return the execution settings of a receipt; what the plan chose is told apart, for every component."""
    names = {field.name for group, field, _ in settings.fields() if group.is_execution}
    return names - {"device", "component_precisions"}


def _is_commit(revision: object) -> bool:
    return isinstance(revision, str) and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def version_differences(receipt: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Return one phrase for each package whose version differs from the receipt's."""
    there = _object(receipt, "versions")
    names = sorted({*there, *here})
    return [
        f"{name} {there.get(name, 'absent')} then, {here.get(name, 'absent')} now"
        for name in names
        if there.get(name) != here.get(name)
    ]
