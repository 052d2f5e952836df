"""The encoders as the host sees them: what each can hold, and what is checked before and after the real work."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sglang_core import ConfigError, OutputError

from .libraries import PILLOW, PYAV
from .receipt_readers import NotThisFormatError, gif_comment, jpeg_comment, mp4_comment, png_comment, webp_comment
from .receipts import unpack

if TYPE_CHECKING:
    from sglang_core import Availability, EncodingOptions, GeneratedMedia, MediaKind, Receipt

    from .libraries import Library

IMAGE: frozenset[MediaKind] = frozenset({"image"})
VIDEO: frozenset[MediaKind] = frozenset({"video"})


class FileEncoder:
    """What the formats share; a subclass declares its own, writes the file and finds its comment."""

    name: ClassVar[str]
    extensions: ClassVar[Collection[str]]
    kinds: ClassVar[Collection[MediaKind]]
    order: ClassVar[int]
    library: ClassVar[Library]
    #: Longest side in pixels.
    max_side: ClassVar[int]

    def probe(self) -> Availability:
        """Say whether the library that writes this format is installed; it is not imported."""
        return self.library.probe()

    def encode(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write ``media`` with its receipt to ``path``; the same input gives the same bytes.

        :raises OutputError: if this format cannot hold these frames, or the library refuses them.
        :raises OSError: if the file cannot be written.
        """
        self._refuse_unfit(media)
        try:
            self.write(media, path, options, receipt)
        except OSError as error:
            if error.errno:
                raise
            raise self._refusal(error) from error
        except ValueError as error:  # what the libraries raise for values they cannot hold
            raise self._refusal(error) from error

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        raise NotImplementedError

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        raise NotImplementedError

    def read_receipt(self, path: Path) -> Receipt | None:
        """Return the receipt in a file of this format, ``None`` if it has none; reads little more than that.

        :raises ConfigError: if the file cannot be read, is cut off, or has another format.
        """
        try:
            comment = self.find_comment(path)
        except NotThisFormatError as error:
            raise ConfigError(
                f"{str(path)!r} is not a whole {self.name} file: {error}", "give a file as 'sglang generate' wrote it"
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}", "check the path") from error
        return None if comment is None else unpack(comment)

    def _refuse_unfit(self, media: GeneratedMedia) -> None:
        shape, dtype = media.frames.shape, media.frames.dtype
        if len(shape) != 4 or 0 in shape or shape[3] not in (3, 4) or dtype != "uint8":
            raise OutputError(
                f"frames of shape {shape} and type {dtype} cannot be encoded: "
                "they must be uint8 (frames, height, width, 3 or 4)",
                "report it to the author of the backend that made them",
            )
        if media.kind not in self.kinds or (media.kind == "image" and media.num_frames != 1):
            noun = "a clip" if media.kind == "video" else f"an image of {media.num_frames} frames"
            raise OutputError(f"a {self.name} file cannot hold {noun}", "choose another file name extension")
        width, height = media.size
        if max(width, height) > self.max_side:
            raise OutputError(
                f"a {self.name} file cannot hold {width}x{height} pixels: {self.max_side} a side are the most",
                "choose another file name extension, or a smaller size",
            )

    def _refusal(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self.library.title} cannot write this as {self.name}: {error}", "choose another file name extension"
        )


class PngEncoder(FileEncoder):
    """Pictures, exact to the bit."""

    name = "png"
    extensions = ("png",)
    kinds = IMAGE
    order = 10
    library = PILLOW
    max_side = 2**31 - 1

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        from .pictures import write_png  # Pillow and numpy

        write_png(media, path, options, receipt)

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        return png_comment(path)


class JpegEncoder(FileEncoder):
    """Pictures for everywhere."""

    name = "jpeg"
    extensions = ("jpg", "jpeg")
    kinds = IMAGE
    order = 20
    library = PILLOW
    max_side = 65500  # libjpeg's own limit

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        from .pictures import write_jpeg  # Pillow and numpy

        write_jpeg(media, path, options, receipt)

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        return jpeg_comment(path)


class WebpEncoder(FileEncoder):
    """Pictures and short clips, with transparency."""

    name = "webp"
    extensions = ("webp",)
    kinds = IMAGE | VIDEO
    order = 30
    library = PILLOW
    max_side = 16383

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        from .animations import write_webp  # Pillow and numpy

        write_webp(media, path, options, receipt)

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        return webp_comment(path)


class GifEncoder(FileEncoder):
    """Short clips and pictures in at most 256 colours."""

    name = "gif"
    extensions = ("gif",)
    kinds = IMAGE | VIDEO
    order = 40
    library = PILLOW
    max_side = 65535

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        from .animations import write_gif  # Pillow and numpy

        write_gif(media, path, options, receipt)

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        return gif_comment(path)


class Mp4Encoder(FileEncoder):
    """Clips with sound: H.264 and AAC."""

    name = "mp4"
    extensions = ("mp4",)
    kinds = VIDEO
    order = 10
    library = PYAV
    max_side = 16384

    def write(self, media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
        """Write checked frames."""
        from .clips import write_mp4  # PyAV and numpy

        write_mp4(media, path, options, receipt)

    def find_comment(self, path: Path) -> bytes | None:
        """Return the file's comment."""
        return mp4_comment(path)
