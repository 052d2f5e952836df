"""What the files of a run are called, decided before anything is loaded.

A name that the user gives is kept as far as every file system can hold it: letters, digits, ``.``, ``_`` and ``-``, at
most 150 characters. It is one name, never a path, so nothing is written outside the output folder.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen

from .errors import ConfigError, UnavailableError
from .media import MediaEncoder
from .options.host import OutputOptions
from .planning_types import Choice, OutputPlan
from .requests import GenerationRequest, MediaKind

MAX_NAME_LENGTH = 150
_PROMPT_CHARACTERS_IN_NAME = 100
#: Names that Windows keeps for devices, whatever their extension.
_DEVICE_NAMES = frozenset({"CON", "PRN", "AUX", "NUL"} | {f"{port}{i}" for port in ("COM", "LPT") for i in range(10)})
#: Endings that clearly ask for a format. Appending the default one to them would only hide that it is not written.
_MEDIA_EXTENSIONS = frozenset(
    {"apng", "avi", "avif", "bmp", "exr", "glb", "heic", "heif", "ico", "jp2", "jxl", "m4v", "mkv", "mov", "mpeg"}
    | {"mpg", "obj", "ogv", "psd", "svg", "tga", "tif", "tiff", "webm", "wmv"}
)
_PRESETS = {"maximum": 100, "high": 90, "medium": 55, "low": 35}
_NOUNS = {"image": "an image", "video": "a clip"}


def plan_outputs(
    options: OutputOptions,
    kind: MediaKind,
    requests: Sequence[GenerationRequest],
    encoders: Iterable[MediaEncoder],
    *,
    outputs_per_prompt: int = 1,
    started: datetime,
) -> OutputPlan:
    """Choose the format, the folder and the file name of each request; touches no disk and imports no encoder.

    :param requests: one for each output, those of one prompt side by side.
    :param encoders: all that are registered.
    :param started: goes into the names of outputs that the user gave none.
    :raises ConfigError: for a name that asks for a format which cannot hold ``kind``, or that nobody writes.
    :raises UnavailableError: when the encoder of that format cannot work on this machine.
    """
    compression = resolve_compression(options)
    target = _requested_target(options)
    if target is None:
        return OutputPlan(
            directory=None,
            file_names=(),
            encoder=Choice(value="none", reason="nothing is saved", is_automatic=False),
            extension="",
            compression=compression,
            x264_preset=options.x264_preset,
        )
    known = sorted(encoders, key=lambda encoder: encoder.order)
    encoder, stem, suffix = _choose_encoder(target, kind, known)
    _require_available(encoder.value, known)
    if target.name is None:
        names = _default_names(requests, outputs_per_prompt, started, suffix)
    else:
        names = _numbered(stem, suffix, len(requests))
    return OutputPlan(
        directory=target.directory,
        file_names=names,
        encoder=encoder,
        extension=suffix.lower().removeprefix("."),
        compression=compression,
        x264_preset=options.x264_preset,
        notes=_naming_notes(target, suffix, names),
    )


def resolve_compression(options: OutputOptions) -> int | None:
    """Return the encoder quality from 0 to 100; ``None`` leaves it to the format (75 for images, 50 for clips)."""
    if options.output_compression is not None:
        return options.output_compression
    return _PRESETS.get(options.output_quality)


def sanitise_name(name: str) -> str:
    """Return ``name`` in the characters that every file system holds, ``output`` if nothing is left; without a cut."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9._-]", "_", _to_ascii(name))).strip("._") or "output"
    return f"output_{plain}" if plain.split(".")[0].upper() in _DEVICE_NAMES else plain


def _to_ascii(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")


@frozen(kw_only=True)
class _Target:
    """What the user asked for: ``name`` as given (``None``: none was) and the setting it came from."""

    directory: str
    name: str | None
    source: str

    @property
    def stem_and_extension(self) -> tuple[str, str]:
        """Return the parts around the last dot in ASCII; the extension is empty if there is no dot.

        They are parted before the name is sanitised: a name without one ASCII letter still tells its format.
        """
        name = _to_ascii(self.name or "").strip().rstrip("._ ")
        stem, dot, extension = name.rpartition(".")
        return (stem, extension) if dot else (name, "")


def _requested_target(options: OutputOptions) -> _Target | None:
    if not options.save_output:
        return None
    if options.output_file_path:
        path = Path(options.output_file_path)
        if path.name in ("", "..") or options.output_file_path.endswith(("/", os.sep)):
            raise ConfigError(
                f"--output-file-path {options.output_file_path!r} names a folder, not a file",
                f"use --output-path {options.output_file_path!r}, or add a file name",
            )
        source = "--output-file-path"
        return _Target(directory=_user_folder(path.parent, source), name=path.name, source=source)
    if not options.output_path:
        return None
    directory = _user_folder(Path(options.output_path), "--output-path")
    return _Target(directory=directory, name=options.output_file_name or None, source="--output-file-name")


def _user_folder(directory: Path, source: str) -> str:
    if "\0" in str(directory):
        raise ConfigError(f"{source} has a NUL character: {str(directory)!r}", "leave it out, no path can have one")
    try:
        return str(directory.expanduser())  # configuration files have no shell to do it
    except RuntimeError as error:
        raise ConfigError(f"{source} {str(directory)!r}: {error}", "write the path of the folder in full") from error


def _choose_encoder(target: _Target, kind: MediaKind, known: Sequence[MediaEncoder]) -> tuple[Choice[str], str, str]:
    """Return the encoder, the stem to name files by, and the suffix (a dot and the extension as it is written)."""
    stem, extension = target.stem_and_extension
    holding = [encoder for encoder in known if kind in encoder.kinds]
    if not holding:
        raise UnavailableError(
            f"no installed encoder writes {_NOUNS[kind]}",
            "install or enable a plugin with media encoders (see 'sglang plugins list'), or pass --no-save-output",
        )
    by_extension = {name: encoder for encoder in known for name in encoder.extensions}
    named = by_extension.get(extension.lower())
    remedy = "end the name with one of: " + ", ".join(f".{_first_extension(encoder)}" for encoder in holding)
    if named is not None and kind not in named.kinds:
        raise ConfigError(
            f"a .{extension} file cannot hold {_NOUNS[kind]}, which is what this model makes "
            f"({target.source} {target.name!r})",
            remedy,
        )
    if named is not None:
        reason = f"{target.source} ends with .{extension}"
        return Choice(value=named.name, reason=reason, is_automatic=False), stem, f".{extension}"
    if extension.lower() in _MEDIA_EXTENSIONS:
        raise ConfigError(f"no installed encoder writes .{extension} files ({target.source} {target.name!r})", remedy)
    choice = Choice(value=holding[0].name, reason=f"the default for {_NOUNS[kind]}", is_automatic=True)
    return choice, target.name or "", f".{_first_extension(holding[0])}"


def _first_extension(encoder: MediaEncoder) -> str:
    return next(iter(encoder.extensions))


def _require_available(name: str, known: Iterable[MediaEncoder]) -> None:
    # No quiet change to another format: which one is written must not depend on what happens to be installed.
    encoder = next(encoder for encoder in known if encoder.name == name)
    availability = encoder.probe()
    if not availability.is_available:
        raise UnavailableError(f"{name} files cannot be written: {availability.reason}", availability.remedy)


def _numbered(stem: str, suffix: str, count: int) -> tuple[str, ...]:
    if count == 1:
        return (_fit(stem, suffix),)
    return tuple(_fit(stem, f"_{i}{suffix}") for i in range(count))


def _fit(stem: str, ending: str) -> str:
    """Join a stem and what must survive (number and extension), cutting only the stem."""
    return (sanitise_name(stem)[: MAX_NAME_LENGTH - len(ending)].strip("._") or "output") + ending


def _default_names(
    requests: Sequence[GenerationRequest], outputs_per_prompt: int, started: datetime, suffix: str
) -> tuple[str, ...]:
    """Name outputs by prompt, time and request, so that no two runs of different requests share a name."""
    names: list[str] = []
    for first in range(0, len(requests), outputs_per_prompt):
        of_one_prompt = requests[first : first + outputs_per_prompt]
        text = of_one_prompt[0].prompt[:_PROMPT_CHARACTERS_IN_NAME]
        stem = f"{sanitise_name(text)}_{started:%Y%m%d-%H%M%S}_{_digest(of_one_prompt[0])}"
        names += _numbered(stem, suffix, len(of_one_prompt))
    if len({name.lower() for name in names}) == len(names):  # some file systems do not tell upper from lower case
        return tuple(names)
    return tuple(_fit(name.removesuffix(suffix), f"_{i}{suffix}") for i, name in enumerate(names))


def _digest(request: GenerationRequest) -> str:
    described = json.dumps(request.to_json(), sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()[:8]


def _naming_notes(target: _Target, suffix: str, names: Sequence[str]) -> tuple[str, ...]:
    given = (target.name or "").removesuffix(suffix)
    if target.name is None or names[-1] in (given + suffix, f"{given}_{len(names) - 1}{suffix}"):
        return ()
    return (
        f"{target.source} {target.name!r} is saved as {names[0]!r}: a name has at most {MAX_NAME_LENGTH} characters, "
        "and only letters A-Z, digits, '.', '_' and '-'",
    )
