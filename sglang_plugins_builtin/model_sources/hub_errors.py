"""The errors of the hub's client as one sentence and a remedy. A token is never part of a message."""

import errno

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sglang_core import ModelLoadError, ModelNotFoundError, ModelReference, SglangError

_SIGN_IN = "set HF_TOKEN (or pass --hf-token) to a token of an account with access"


class UnreachableHubError(ModelNotFoundError):
    """The hub does not answer: caught where a downloaded copy can serve instead."""


def hub_error(error: Exception, reference: ModelReference) -> Exception:
    """Return the error to raise instead of ``error``; ``error`` itself if it is not the hub's."""
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, Exception):
        return hub_error(cause, reference)  # "not in the cache either": the reason is the cause
    if isinstance(error, SglangError):
        return error
    if isinstance(error, HfHubHTTPError | EntryNotFoundError):
        return _answer_error(error, reference)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(reference)
    if isinstance(error, OfflineModeIsEnabled):
        return ModelNotFoundError(
            f"{reference.path} can not be looked up: the run is offline", "unset HF_HUB_OFFLINE, or give a local folder"
        )
    if isinstance(error, PermissionError):
        return ModelLoadError(
            f"{reference.path} can not be written to the cache {constants.HF_HUB_CACHE}: no permission",
            "set HF_HOME to a folder you can write to",
        )
    if _is_transport_error(error):
        return UnreachableHubError(
            f"{reference.path} can not be looked up: the hub {constants.ENDPOINT} does not answer ({_kind(error)})",
            "check the connection and HF_ENDPOINT, or run with --offline if the model is downloaded",
        )
    if isinstance(error, OSError):  # the client's report of a file that arrived with another size
        return ModelNotFoundError(
            f"a download of {reference.path} failed: {str(error).splitlines()[0] if str(error) else _kind(error)}",
            "run the command again: finished files are kept",
        )
    return error


def no_space(
    reference: ModelReference, needed_bytes: int | None = None, free_bytes: int | None = None
) -> ModelLoadError:
    """Return the error for a full disk, with the sizes if they are known."""
    sizes = ""
    if needed_bytes is not None and free_bytes is not None:
        sizes = f": {needed_bytes / 1e9:.2f} GB are needed, {free_bytes / 1e9:.2f} GB are free"
    return ModelLoadError(
        f"{reference.path} does not fit on the disk of {constants.HF_HUB_CACHE}{sizes}",
        "free some space, or set HF_HOME to a folder on a larger disk",
    )


def _answer_error(error: HfHubHTTPError | EntryNotFoundError, reference: ModelReference) -> ModelNotFoundError:
    """Say what an answer of the hub means."""
    name = reference.path
    if isinstance(error, GatedRepoError):
        return ModelNotFoundError(
            f"{name} is gated: its owner asks you to accept its conditions first",
            f"accept them on {constants.ENDPOINT}/{name}, then {_SIGN_IN}",
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFoundError(
            f"the hub has no model {name}, or it is private",
            f"check the spelling; for a private one {_SIGN_IN}; for a local folder give ./{name}",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(
            f"{name} has no revision {reference.revision or 'main'}",
            f"use a branch, tag or full commit of {constants.ENDPOINT}/{name}, or leave --revision out",
        )
    if isinstance(error, DisabledRepoError):
        return ModelNotFoundError(f"{name} is disabled on the hub", "use another model")
    if isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError):
        return _status_error(error.response.status_code, name)
    return ModelNotFoundError(f"a file of {name} is not on the hub", "run the command again: the repo may have changed")


def _status_error(status: int, name: str) -> ModelNotFoundError:
    if status in (401, 403):
        return ModelNotFoundError(f"the hub gives no access to {name} (status {status})", _SIGN_IN)
    if status == 429:
        return ModelNotFoundError(f"the hub refuses {name} for now: too many requests", f"wait a little, or {_SIGN_IN}")
    if status >= 500:
        return UnreachableHubError(
            f"{name} can not be looked up: the hub {constants.ENDPOINT} fails with status {status}",
            "run it again later, or run with --offline if the model is downloaded",
        )
    return ModelNotFoundError(f"the hub answers {name} with status {status}", "check the id and HF_ENDPOINT")


def _is_transport_error(error: Exception) -> bool:
    """Say whether an error comes from the connection. The client has changed its transport package before."""
    package = type(error).__module__.partition(".")[0]
    return package.startswith(("httpx", "httpcore", "requests")) or isinstance(error, ConnectionError | TimeoutError)


def _kind(error: Exception) -> str:
    return type(error).__name__
