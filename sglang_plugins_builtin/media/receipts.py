"""The receipt as text: the comment of the file, a JSON object whose one key says whose it is."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sglang_core import Receipt

logger = logging.getLogger(__name__)

SOFTWARE = "sglang-plugins"
#: A larger comment is never read, whoever wrote it, and so never written.
MAX_COMMENT_BYTES = 1 << 20
_KEY = "sglang"
_DESCRIPTION_CHARACTERS = 1000


def pack(receipt: Receipt, *, ensure_ascii: bool = False) -> bytes | None:
    """Return the comment to store (UTF-8), or ``None`` with a warning if it is too large to be read again."""
    text = json.dumps({_KEY: dict(receipt)}, ensure_ascii=ensure_ascii, separators=(",", ":"))
    # Prompts from a command line may hold lone surrogates; as an escape JSON brings them back.
    comment = text.encode("utf-8", errors="backslashreplace")
    if len(comment) > MAX_COMMENT_BYTES:
        logger.warning(
            "the receipt of %d bytes is not stored in the file (at most %d): --from-file cannot repeat it",
            len(comment),
            MAX_COMMENT_BYTES,
        )
        return None
    return comment


def unpack(comment: bytes) -> Receipt | None:
    """Return the receipt in a comment, ``None`` if the comment is somebody else's."""
    try:
        value = json.loads(comment)
    except (ValueError, RecursionError):  # any program may have written the comment
        return None
    receipt = value.get(_KEY) if isinstance(value, dict) else None
    return receipt if isinstance(receipt, dict) else None


def describe(receipt: Receipt) -> str:
    """Return the start of the prompt in one line, for the field that file managers show."""
    request = receipt.get("request")
    prompt = receipt.get("prompt") or (request.get("prompt") if isinstance(request, dict) else None) or ""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+", " ", str(prompt)).strip()
    return line if len(line) <= _DESCRIPTION_CHARACTERS else line[: _DESCRIPTION_CHARACTERS - 1] + "…"
