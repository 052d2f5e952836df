"""Noise levels, from 1 for noise alone down to 0, pulled and stretched before a run. Rounding is that of diffusers."""

from typing import Any

import numpy.typing as npt

from sglang_core import RequestError

Levels = npt.NDArray[Any]


def shifted(levels: Levels, shift: float) -> Levels:
    """Return the levels pulled towards noise by a ``shift`` above 1."""
    pulled: Levels = shift * levels / (1 + (shift - 1) * levels)
    return pulled


def stretched(levels: Levels, terminal: float) -> Levels:
    """Return the levels stretched so that the last one is ``terminal``.

    :raises RequestError: if there is one level alone, which is noise.
    """
    signal = 1 - levels
    if signal[-1] == 0:
        raise RequestError(
            f"the noise schedule ends at {terminal}, which takes more steps than {len(levels)}",
            "use --num-inference-steps 2 or more",
        )
    reached: Levels = 1 - signal / (signal[-1] / (1 - terminal))
    return reached
