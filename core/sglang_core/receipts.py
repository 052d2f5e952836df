"""The receipt: what an output was made of, enough to make it again.

It holds no time, path or duration, so that the same request gives the same bytes.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .media import MediaEncoder
from .options import Settings
from .options.convert import convert
from .planning_types import ExecutionPlan
from .requests import GenerationRequest

logger = logging.getLogger(__name__)

RECEIPT_FORMAT = 1


def make_receipt(plan: ExecutionPlan, request: GenerationRequest) -> dict[str, Any]:
    """Return the receipt of one output: JSON values with a fixed order of keys."""
    model = plan.model
    return {
        "format": RECEIPT_FORMAT,
        "request": request.to_json(),
        "model": {"reference": model.reference, "revision": model.revision, "pipeline": model.pipeline_class},
        "plan": {
            "backend": plan.backend.value,
            "device": plan.device.value,
            "attention": plan.attention.value,
            "precision": {
                name: component.precision.value
                for name, component in sorted(plan.components.items())
                if component.precision.value is not None
            },
            "transforms": [choice.value for choice in plan.transforms],
            "settings": _execution_settings(plan.settings),
        },
        "versions": dict(sorted(plan.versions.items())),
    }


def _execution_settings(settings: Settings) -> dict[str, Any]:
    given = settings.to_json()
    names = {field.name for group, field, _ in settings.fields() if group.is_execution}
    return {name: value for name, value in sorted(given.items()) if name in names - {"device"}}


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
    fields = {field.name: field for _, field, _ in settings.fields()}
    values = _values_of(receipt)
    changes = {}
    for name, value in values.items():
        if name not in fields or settings.is_given(name):
            continue
        try:
            changes[name] = convert(fields[name], value)
        except ValueError as error:
            raise ConfigError(f"--from-file {path}: {name}: {error}", "the receipt was changed by hand") from error
    try:
        return settings.replace(**changes)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--from-file {path}: {error.args[0]}", "the receipt was changed by hand") from error


def _values_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    request = dict(receipt["request"])
    model, plan = receipt.get("model", {}), receipt.get("plan", {})
    values: dict[str, Any] = {"prompt": [request.pop("prompt", "")], "seed": [request.pop("seed", 42)]}
    values["diffusers_kwargs"] = request.pop("extra", {})
    values.update(request)
    values["model_path"] = model.get("reference")
    if _is_commit(model.get("revision")):
        values["revision"] = model["revision"]
    values["backend"] = plan.get("backend")
    values["device"] = plan.get("device")
    values["component_precisions"] = plan.get("precision", {})
    values.update(plan.get("settings", {}))
    return {name: value for name, value in values.items() if value is not None}


def _is_commit(revision: object) -> bool:
    return isinstance(revision, str) and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def version_differences(receipt: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """Return one phrase for each package whose version differs from the receipt's."""
    there = receipt.get("versions", {})
    names = sorted({*there, *here})
    return [
        f"{name} {there.get(name, 'absent')} then, {here.get(name, 'absent')} now"
        for name in names
        if there.get(name) != here.get(name)
    ]
