"""Finds the models that lie inside this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import Availability, CheckResult, ModelNotFoundError, SglangError, closest

if TYPE_CHECKING:
    from sglang_core import FolderSource, ModelReference, ModelSource

PREFIX = "demo/"
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
_REINSTALL = "pip install --force-reinstall sglang-plugins"


class DemoResolver:
    """Takes ``demo/NAME``.

    :param folder: where the models lie, one folder each.
    """

    name = "demo"
    order = 20

    def __init__(self, folder: Path = WEIGHTS_FOLDER) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the embedded models as references, by looking at the folder."""
        if not self._folder.is_dir():
            return []
        return sorted(
            f"{PREFIX}{path.name}" for path in self._folder.iterdir() if (path / "model_index.json").is_file()
        )

    def probe(self) -> Availability:
        """Say whether the package has come with its models."""
        if not self.names():
            return Availability.no("this installation has no embedded models", _REINSTALL)
        return Availability.yes(", ".join(self.names()))

    def resolve(self, reference: ModelReference) -> ModelSource | None:
        """Return the embedded model, or ``None`` if the reference does not start with ``demo/``.

        :raises ModelNotFoundError: if there is no such model, or not in the revision that is asked for.
        """
        if not reference.path.startswith(PREFIX):
            return None
        from sglang_core import FolderSource  # only where a model is looked for

        names = self.names()
        if reference.path not in names:
            raise _unknown(reference.path, names)
        folder = self._folder / reference.path.removeprefix(PREFIX)
        source = FolderSource(reference.path, self.name, folder)
        source.revision = _revision(source)
        if reference.revision not in (None, source.revision):
            raise ModelNotFoundError(
                f"{reference.path} comes in revision {source.revision} only, not {reference.revision}",
                "leave --revision out, or install the version of sglang-plugins that has it",
            )
        return source

    def hint(self, reference: ModelReference) -> str | None:
        """Name the embedded models."""
        return f"an embedded model ({', '.join(self.names()) or 'none are installed'})"


def _unknown(name: str, names: list[str]) -> ModelNotFoundError:
    if not names:
        return ModelNotFoundError(f"there is no embedded model {name}: this installation has none", _REINSTALL)
    close = closest(name, names)
    remedy = f"use {close}" if close else f"use one of: {', '.join(names)}"
    return ModelNotFoundError(f"there is no embedded model {name} (there are: {', '.join(names)})", remedy)


def _revision(source: FolderSource) -> str | None:
    """Return ``revision`` of the model's ``sglang.json``, the version of its weights."""
    from sglang_core import SAMPLING_FILE, read_json  # as above

    if SAMPLING_FILE not in source.files():
        return None
    revision = read_json(source, SAMPLING_FILE).get("revision")
    return None if revision is None else str(revision)


def check_embedded_models(resolver: DemoResolver | None = None) -> CheckResult:
    """Read the configuration and the weight headers of every embedded model."""
    from sglang_core import ModelReference, describe_model  # as above

    resolver = resolver or DemoResolver()
    availability = resolver.probe()
    if not availability.is_available:
        return CheckResult(status="problem", message=availability.reason, remedy=availability.remedy)
    found = []
    for name in resolver.names():
        try:
            source = resolver.resolve(ModelReference(path=name))
            assert source is not None  # the resolver listed it
            model = describe_model(source)
        except SglangError as error:
            return CheckResult(status="problem", message=error.problem, remedy=_REINSTALL)
        found.append(f"{name} ({model.num_bytes / 1e6:.1f} MB)")
    return CheckResult(status="ok", message=", ".join(found))
