"""Where the tokens of Qwen-Image are: rotations for images around a common centre, with the text after them."""

from collections.abc import Sequence

import torch
from attrs import frozen

from ..layers import RotaryTable

_THETA = 10000.0


@frozen(eq=False)
class JointRotary:
    """The rotations of both streams."""

    text: RotaryTable
    image: RotaryTable
    #: The first of the image's tokens belong to the image that is made, the others to reference images.
    num_target_tokens: int


def joint_rotary(
    image_shapes: Sequence[tuple[int, int, int]],
    text_length: int,
    axes_dims: tuple[int, int, int],
    device: torch.device | str = "cpu",
) -> JointRotary:
    """Return the rotations of images of (frames, rows, columns) tokens each, and of ``text_length`` text tokens.

    Image k has frame positions from k on; rows and columns count from the middle, so positions of images of different
    sizes agree there. Text goes along the diagonal, from the largest position of an image on. An axis has
    ``axes_dims`` / 2 frequencies.
    """
    frequencies = [1 / _THETA ** (torch.arange(0, size, 2, dtype=torch.float32) / size) for size in axes_dims]
    images = []
    for index, (frames, rows, columns) in enumerate(image_shapes):
        axes = (
            torch.arange(index, index + frames),
            torch.arange(rows // 2 - rows, rows // 2),
            torch.arange(columns // 2 - columns, columns // 2),
        )
        grid = torch.cartesian_prod(*axes)  # (tokens, 3)
        images.append(RotaryTable.of_angles(_angles(grid, frequencies)))
    start = max(max(rows // 2, columns // 2) for _, rows, columns in image_shapes)
    diagonal = torch.arange(start, start + text_length)[:, None].expand(-1, 3)
    frames, rows, columns = image_shapes[0]
    return JointRotary(
        RotaryTable.of_angles(_angles(diagonal, frequencies)).to(device),
        RotaryTable.join(images).to(device),
        frames * rows * columns,
    )


def _angles(positions: torch.Tensor, frequencies: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return float32 (tokens, head_dim / 2) for ``positions`` (tokens, 3)."""
    return torch.cat([torch.outer(positions[:, axis], of_axis) for axis, of_axis in enumerate(frequencies)], dim=1)
