"""Pictures of a clip: ``python -m sglang_plugins_builtin.openai_api.stills KIND CLIP PICTURE``.

A process of its own, so that the server loads no decoder: it decodes one of the server's own files and writes the
picture beside it. ``thumbnail`` is the middle frame (WebP), ``spritesheet`` a grid over the whole clip (JPEG).
"""

import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

#: Exit code for a machine without the libraries.
NO_LIBRARY = 3
_THUMBNAIL_SIDE = 512
_TILE_SIDE = 256
_MAX_TILES = 16


def thumbnail(clip: Path) -> "Image":
    """Return the middle frame, with at most 512 pixels a side."""
    (frame,) = _frames(clip, [_count(clip) // 2])
    frame.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return frame


def spritesheet(clip: Path) -> "Image":
    """Return up to 16 frames, evenly spread, row by row in a grid; each has at most 256 pixels a side."""
    from PIL import Image

    num_frames = _count(clip)
    num_tiles = min(_MAX_TILES, num_frames)
    wanted = [index * (num_frames - 1) // max(1, num_tiles - 1) for index in range(num_tiles)]
    frames = _frames(clip, wanted)
    for frame in frames:
        frame.thumbnail((_TILE_SIDE, _TILE_SIDE))
    width, height = frames[0].size
    columns = math.ceil(math.sqrt(len(frames)))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(frames) / columns) * height))
    for index, frame in enumerate(frames):
        sheet.paste(frame, (index % columns * width, index // columns * height))
    return sheet


def _count(clip: Path) -> int:
    import av

    with av.open(str(clip)) as container:
        count = sum(1 for packet in container.demux(video=0) if packet.size)
    if not count:
        raise ValueError("the clip has no frame")
    return count


def _frames(clip: Path, wanted: Collection[int]) -> "list[Image]":
    """Return the frames of these numbers in their order, without holding the others."""
    import av

    found = []
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                found.append(frame.to_image())  # type: ignore[no-untyped-call]  # of PyAV
            if index >= max(wanted):
                break
    if not found:
        raise ValueError("no frame of the clip can be decoded")
    return found


def main(arguments: list[str]) -> int:
    """Write the picture whole or not at all."""
    kind, clip, picture = arguments[0], Path(arguments[1]), Path(arguments[2])
    try:
        import av  # noqa: F401 - asked for here, so that its absence is told apart
        from PIL import Image  # noqa: F401
    except ImportError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent process reads it
        return NO_LIBRARY
    image = {"thumbnail": thumbnail, "spritesheet": spritesheet}[kind](clip)
    part = picture.with_name(f"{picture.name}.part")
    with part.open("wb") as file:
        image.save(file, "WEBP" if kind == "thumbnail" else "JPEG", quality=80)
    part.replace(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
