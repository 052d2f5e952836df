"""What a media encoder is to the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from .registry import Availability
    from .requests import GeneratedMedia, MediaKind

Receipt = Mapping[str, Any]


@frozen(kw_only=True)
class EncodingOptions:
    """How to encode. ``compression`` is 0 to 100 on the scale of ``--output-compression``, ``None`` when unset."""

    compression: int | None = None
    x264_preset: str | None = None
    fps: float | None = None

    def quality(self, kind: MediaKind) -> int:
        """Return the quality from 0 to 100: ``compression``, or when that is unset 75 for images and 50 for clips."""
        if self.compression is not None:
            return self.compression
        return 75 if kind == "image" else 50


class MediaEncoder(Protocol):
    """Writes frames into files of one format, and reads back the receipt it wrote."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def extensions(self) -> Collection[str]:
        """File name extensions in lower case without the dot; the first is the one written by default."""

    @property
    def kinds(self) -> Collection[MediaKind]:
        """The kinds of media it can hold."""

    @property
    def order(self) -> int:
        """The encoder with the lowest order that holds a kind is that kind's default."""

    def probe(self) -> Availability:
        """Say whether this encoder can work here."""

    def encode(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write ``media`` to ``path`` (a new file), with ``receipt`` in the file's own metadata.

        :raises OutputError: if these frames cannot be held by this format.
        """

    def read_receipt(self, path: Path) -> Receipt | None:
        """Return the receipt in a file of this format, or ``None`` if it has none."""
