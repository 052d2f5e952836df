"""What ``sglang doctor`` asks about the hub. Nothing goes over the network."""

import os
import shutil
from pathlib import Path

from sglang_core import CheckResult

from .hub import HubResolver

#: Less than the weights of most image models.
_LITTLE_SPACE_BYTES = 20 * 10**9


def check_hub() -> CheckResult:
    """Look at the hub's client, its cache folder and the space there."""
    availability = HubResolver().probe()
    if not availability.is_available:
        return CheckResult(status="warning", message=availability.reason, remedy=availability.remedy)

    from huggingface_hub import constants, get_token

    cache = Path(constants.HF_HUB_CACHE)
    existing = cache
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        return CheckResult(
            status="problem",
            message=f"models can not be downloaded: {cache} is not writable",
            remedy="set HF_HOME to a folder you can write to",
        )
    free = shutil.disk_usage(existing).free
    parts = [
        f"downloads go to {cache} ({free / 1e9:.0f} GB free)",
        f"hub {constants.ENDPOINT}",
        "offline" if constants.is_offline_mode() else "online",
        "with an access token" if get_token() else "without an access token",
    ]
    if free < _LITTLE_SPACE_BYTES:
        remedy = "free some space, or set HF_HOME to a larger disk"
        return CheckResult(status="warning", message="; ".join(parts), remedy=remedy)
    return CheckResult(status="ok", message="; ".join(parts))
