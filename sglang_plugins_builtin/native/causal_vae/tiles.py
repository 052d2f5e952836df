"""Pictures cut into overlapping tiles and put together again."""

from collections.abc import Callable

import torch


def map_tiles(
    x: torch.Tensor,
    code: Callable[[torch.Tensor], torch.Tensor],
    given: tuple[tuple[int, int], tuple[int, int]],
    made: tuple[tuple[int, int], tuple[int, int]],
) -> torch.Tensor:
    """Apply ``code`` to each tile of ``x`` and blend what it makes of them.

    Only the edges of the row before are kept, and each tile is written to its place at once.

    :param x: (batch, channels, frames, height, width).
    :param code: returns (batch, other channels, other frames, ...) in the resolution of ``made``.
    :param given: tile size and stride, per height and width, in pixels of ``x``; each size at least its stride.
    :param made: the same in pixels of the result.
    """
    (tile_height, stride_height), (tile_width, stride_width) = given
    (made_height, step_height), (made_width, step_width) = made
    overlap_height, overlap_width = made_height - step_height, made_width - step_width
    height, width = x.shape[3] * made_height // tile_height, x.shape[4] * made_width // tile_width
    result: torch.Tensor | None = None
    above: list[torch.Tensor] = []
    for row, top in enumerate(range(0, x.shape[3], stride_height)):
        edges: list[torch.Tensor] = []
        left: torch.Tensor | None = None
        for column, start in enumerate(range(0, x.shape[4], stride_width)):
            tile = code(x[..., top : top + tile_height, start : start + tile_width])
            if row:
                _blend(above[column], tile, overlap_height, dim=3)
            if left is not None:
                _blend(left, tile, overlap_width, dim=4)
            edges.append(_last(tile, overlap_height, dim=3))
            left = _last(tile, overlap_width, dim=4)
            if result is None:
                result = tile.new_empty(*tile.shape[:3], height, width)
            place = result[..., row * step_height :, column * step_width :][..., :step_height, :step_width]
            place.copy_(tile[..., :step_height, :step_width])
        above = edges
    assert result is not None
    return result


def count_tiles(height: int, width: int, given: tuple[tuple[int, int], tuple[int, int]]) -> int:
    """Return how many tiles ``map_tiles`` makes of a picture."""
    (_, stride_height), (_, stride_width) = given
    return len(range(0, height, stride_height)) * len(range(0, width, stride_width))


def _last(tile: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    size = min(size, tile.shape[dim])
    return tile.narrow(dim, tile.shape[dim] - size, size).clone()


def _blend(before: torch.Tensor, tile: torch.Tensor, overlap: int, dim: int) -> None:
    """Fade the end of ``before`` into the beginning of ``tile``, in place."""
    size = min(before.shape[dim], tile.shape[dim], overlap)
    if size == 0:
        return
    shape = [1] * tile.dim()
    shape[dim] = size
    share = (torch.arange(size, device=tile.device, dtype=torch.float32) / size).view(shape)
    seam = tile.narrow(dim, 0, size)
    end = before.narrow(dim, before.shape[dim] - size, size)
    seam.copy_(end * (1 - share) + seam * share)
