"""Grid, tiles and window: which tiles a tile sees, in plain numbers."""

import math
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from sglang_core import ConfigError

_SETTING = "attention_backend_config"


@frozen(kw_only=True)
class Tiling:
    """Sizes in (frames, rows, columns): the grid and a tile in tokens, the window in tiles."""

    grid: tuple[int, int, int]
    tile: tuple[int, int, int]
    window: tuple[int, int, int]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "Tiling":
        """Read ``grid``, ``tile`` and ``window``, each written ``21x30x52``.

        :raises ConfigError: if one is not three whole numbers, or the window has no middle.
        """
        if "grid" not in parameters:
            raise ConfigError(
                f"{_SETTING}: sliding_tile_flex needs the grid of tokens",
                "add --attention-backend-config grid=FRAMESxROWSxCOLUMNS, for example grid=21x30x52",
            )
        grid = _three("grid", parameters["grid"])
        tile = _three("tile", parameters.get("tile", "3x6x4"))
        window = _three("window", parameters.get("window", "3x3x3"))
        if any(size % 2 == 0 for size in window):
            raise ConfigError(f"{_SETTING}: window {_text(window)} has no tile in its middle", "give odd numbers")
        return cls(grid=grid, tile=tile, window=window)

    @property
    def num_tokens(self) -> int:
        """Return the tokens of the whole grid."""
        return math.prod(self.grid)

    @property
    def num_tiles(self) -> tuple[int, int, int]:
        """Return the tiles in each direction; the last of a direction may be smaller."""
        frames, rows, columns = (-(-size // step) for size, step in zip(self.grid, self.tile, strict=True))
        return frames, rows, columns

    def first_seen(self, direction: int) -> list[int]:
        """Return for each tile of a direction the first tile that its window covers: at the edges it moves inwards."""
        count, window = self.num_tiles[direction], self.window[direction]
        return [max(0, min(place - window // 2, count - window)) for place in range(count)]

    def __str__(self) -> str:
        return f"{_text(self.grid)} = {self.num_tokens} tokens"


def _three(name: str, value: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"\s*([1-9]\d*)\s*[x,]\s*([1-9]\d*)\s*[x,]\s*([1-9]\d*)\s*", value)
    if found is None:
        problem = f"{_SETTING}: {name} of sliding_tile_flex is three numbers, not {value!r}"
        raise ConfigError(problem, f"write {name}=3x6x4: frames, rows, columns")
    frames, rows, columns = (int(number) for number in found.groups())
    return frames, rows, columns


def _text(sizes: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in sizes)
