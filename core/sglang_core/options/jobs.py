"""The settings of jobs: where they are kept, for how long, and what becomes of interrupted ones."""

import base64
import binascii
import re
from pathlib import Path
from typing import Any, Literal

from attrs import frozen, validators

from .fields import option

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_BYTES["tib"] = 2**40
_MEASURE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_MIN_SECRET_BYTES = 16
_SECRET_PREFIX = "whsec_"  # noqa: S105 - how such a secret begins, as the Standard Webhooks specification has it


def read_age_s(text: str) -> float:
    """Return the seconds of an age like ``90m``, ``36h`` or ``7d``.

    :raises ValueError: if it is none.
    """
    return _measured(text, _SECONDS, "an age such as 90m, 36h or 7d")


def read_size_bytes(text: str) -> int:
    """Return the bytes of a size like ``500MB`` or ``20GiB``; a number alone is bytes.

    :raises ValueError: if it is none.
    """
    return int(_measured(text, _BYTES, "a size such as 500MB or 20GiB"))


def _measured(text: str, units: dict[str, int], expected: str) -> float:
    match = _MEASURE.fullmatch(text.strip().lower())
    if match is None or match[2] not in units or float(match[1]) * units[match[2]] < 1:
        raise ValueError(f"expected {expected}, not {text!r}")
    return float(match[1]) * units[match[2]]


def read_webhook_secret(text: str) -> bytes:
    """Return the key that a webhook secret stands for: ``whsec_`` and base64, or any other text as it is.

    :raises ValueError: if it is too short to be a secret, or not base64; the secret is not in the message.
    """
    key = text.encode()
    if text.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"expected base64 after {_SECRET_PREFIX}, not what is there") from None
    if len(key) < _MIN_SECRET_BYTES:
        raise ValueError(f"expected a secret of at least {_MIN_SECRET_BYTES} bytes, not one of {len(key)}")
    return key


def _readable(read: Any) -> Any:
    def check(instance: object, attribute: Any, value: str) -> None:
        read(value)

    return validators.optional(check)


@frozen(kw_only=True)
class JobOptions:
    """Jobs."""

    job_store: str = option(
        default="sqlite",
        metavar="NAME",
        help="Where jobs are kept: sqlite, which outlives the server, memory, or what a plugin adds.",
    )
    job_store_path: Path | None = option(
        default=None,
        metavar="FOLDER",
        help="Folder of the job store; automatic: .sglang-jobs in the folder of the results.",
    )
    job_retention: str | None = option(
        default=None,
        metavar="AGE",
        validator=_readable(read_age_s),
        help="Delete jobs and their files when they have been over for so long, for example 7d; never if unset.",
    )
    job_retention_bytes: str | None = option(
        default=None,
        metavar="SIZE",
        validator=_readable(read_size_bytes),
        help="Delete the oldest finished jobs when their local files take more than this, for example 50GB.",
    )
    on_interrupted: Literal["requeue", "fail"] = option(
        default="requeue", help="What becomes of a job whose run was interrupted by a crash or a restart."
    )
    max_attempts: int = option(
        default=2, validator=validators.ge(1), help="How often the run of one job is begun before the job fails."
    )
    webhook_secret: str | None = option(
        default=None,
        env="SGLANG_WEBHOOK_SECRET",
        is_secret=True,
        metavar="SECRET",
        validator=_readable(read_webhook_secret),
        help="Key that webhooks are signed with (whsec_ and base64, or a text); webhook_url needs it.",
    )
    webhook_allow_private: bool = option(
        default=False, help="Let webhooks go to addresses that are not public, such as this machine or this network."
    )

    @property
    def retention_s(self) -> float | None:
        """Return how long finished jobs are kept; ``None``: as long as there is room."""
        return None if self.job_retention is None else read_age_s(self.job_retention)

    @property
    def retention_bytes(self) -> int | None:
        """Return how much room the files of finished jobs may take; ``None``: as much as there is."""
        return None if self.job_retention_bytes is None else read_size_bytes(self.job_retention_bytes)
