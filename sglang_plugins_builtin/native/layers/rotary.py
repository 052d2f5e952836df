"""Rotary position embedding from tables that are computed once per run.

Heads are rotated in float32 and rounded once to their dtype. Not compiled, the rotation is one complex multiplication,
on a CPU three times as fast as the same in real numbers; a compiler gets the real form, since it fuses that and does
not know complex numbers. Both give the same values up to the last bit of float32.
"""

from collections.abc import Sequence

import torch
from attrs import field, frozen

from .norms import RMSNorm, widened_rms_norm


@frozen(eq=False)
class RotaryTable:
    """The angles of the tokens of a sequence, as cosines and sines: each float32 (tokens, head_dim / 2)."""

    cos: torch.Tensor
    sin: torch.Tensor
    #: cos + i sin, complex64 (tokens, head_dim / 2).
    turns: torch.Tensor = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "turns", torch.complex(self.cos, self.sin))

    @classmethod
    def of_angles(cls, angles: torch.Tensor) -> "RotaryTable":
        """Make the table of float32 or float64 ``angles`` (tokens, head_dim / 2), in radians."""
        turns = torch.polar(torch.ones_like(angles), angles)
        return cls(turns.real.float().contiguous(), turns.imag.float().contiguous())

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens."""
        return self.cos.shape[0]

    def tokens(self, start: int, stop: int | None = None) -> "RotaryTable":
        """Return the part of the tokens ``start`` to ``stop``."""
        return RotaryTable(self.cos[start:stop], self.sin[start:stop])

    def to(self, device: torch.device | str) -> "RotaryTable":
        """Return the table on ``device``."""
        return RotaryTable(self.cos.to(device), self.sin.to(device))

    @classmethod
    def join(cls, tables: "Sequence[RotaryTable]") -> "RotaryTable":
        """Return the tables of several sequences as that of one."""
        return cls(torch.cat([table.cos for table in tables]), torch.cat([table.sin for table in tables]))


def rotate_pairs(heads: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Rotate neighbouring channels (0 and 1, 2 and 3, ...) of ``heads`` (batch, tokens, heads, head_dim)."""
    return _rotate_pairs(heads.float().contiguous(), table).to(heads.dtype)


def normed_rotary(heads: torch.Tensor, norm: RMSNorm, table: RotaryTable) -> torch.Tensor:
    """Return ``rotate_pairs(norm(heads), table)`` without rounding in between.

    ``heads`` is (batch, tokens, heads, head_dim) and the norm is over one head.
    """
    return _rotate_pairs(widened_rms_norm(heads, norm.weight, norm.eps), table).to(heads.dtype)


def rotate_halves(heads: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Rotate channel i with channel i + head_dim / 2 of ``heads`` (batch, tokens, heads, head_dim)."""
    cos, sin = table.cos.unsqueeze(1), table.sin.unsqueeze(1)
    first, second = heads.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(heads.dtype)


def _rotate_pairs(wide: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    pairs = wide.view(*wide.shape[:-1], -1, 2)  # (batch, tokens, heads, head_dim / 2, 2)
    if not torch.compiler.is_compiling():
        return torch.view_as_real(torch.view_as_complex(pairs) * table.turns.unsqueeze(1)).flatten(-2)
    cos, sin = table.cos.unsqueeze(1), table.sin.unsqueeze(1)
    first, second = pairs.unbind(-1)
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
