"""The stages around the engine's denoising loop: the prompt becomes a condition, noise a picture."""

import torch
from attrs import frozen

from sglang_core import StepControl
from sglang_plugins_builtin.native.engine import ConditioningCache, Residency, RunState, to_media

from .family import TILE_SIZE
from .transformer import COLOURS, MosaicTransformer


class EncodePrompt:
    """Read the prompt; what was read lately is remembered."""

    name = "encode"

    def __init__(self, transformer: MosaicTransformer, residency: Residency) -> None:
        self._transformer = transformer
        self._residency = residency
        self._cache: ConditioningCache[torch.Tensor] = ConditioningCache()

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the condition ``text``: (1, letters, width)."""
        self._residency.use("transformer")
        prompt = state.request.prompt
        state.conditions["text"] = self._cache.get_or_make(prompt, lambda: self._transformer.encode(prompt))


class PrepareTiles:
    """Draw the noise, and compute everything that no step changes."""

    name = "prepare"

    def __init__(self, transformer: MosaicTransformer, residency: Residency) -> None:
        self._transformer = transformer
        self._residency = residency

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set schedule, latents (1, tiles, 3) in float32, and predict."""
        request, transformer = state.request, self._transformer
        rows, columns = (request.height or 128) // TILE_SIZE, (request.width or 128) // TILE_SIZE
        device = state.generator.device
        state.latents = torch.randn((1, rows * columns, COLOURS), generator=state.generator, device=device)
        schedule = EulerSchedule(torch.linspace(1, 0, (request.num_inference_steps or 8) + 1, device=device))
        state.schedule = schedule
        self._residency.use("transformer")
        positions = transformer.positions(rows, columns)
        times = transformer.times(schedule.noise[:-1])
        text = transformer.prepare_text(state.conditions["text"])
        state.predict = lambda latents, index: transformer(latents, positions, times[index], text)


@frozen
class EulerSchedule:
    """Straight steps to the predicted colours; ``noise`` falls from 1 to 0, one level more than there are steps."""

    noise: torch.Tensor

    def __len__(self) -> int:
        return len(self.noise) - 1

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents at the next noise level; at level 0 they are the prediction."""
        kept = self.noise[index + 1] / self.noise[index]
        return kept * latents + (1 - kept) * prediction


class DecodeTiles:
    """Paint each tile in its colour."""

    name = "decode"

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the media."""
        assert state.latents is not None
        rows = (state.request.height or 128) // TILE_SIZE
        tiles = state.latents[0].T.reshape(COLOURS, rows, -1)
        pixels = tiles.repeat_interleave(TILE_SIZE, dim=1).repeat_interleave(TILE_SIZE, dim=2)
        state.media = to_media(pixels[:, None], "image")
