"""The stages of Qwen-Image: prompts to conditions, noise and tables, and latents to a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from torch.nn import functional

from sglang_core import GenerationRequest, StepControl

from ..causal_vae.config import CausalVaeConfig
from ..engine import Predict, Residency, RunState, pays_to_join, planned
from ..schedules.settings import FlowMatchEulerSettings
from .positions import JointRotary
from .prompts import TEXT_TO_IMAGE, prompt_tokens
from .start_stages import Start, begin
from .text_encoder import Qwen2TextEncoder
from .tokenizer import Qwen2Tokenizer
from .transformer import QwenImageTransformer, StepModulation, TextCondition

#: Two latents of a side make one token.
_PACKED = 2


def guidance_of(request: GenerationRequest) -> float:
    """Return the scale of guidance, 1 for a request without: by its scale, or for want of a negative prompt."""
    if request.negative_prompt is None or request.guidance_scale is None:
        return 1.0
    return max(request.guidance_scale, 1.0)


def is_guided(request: GenerationRequest) -> bool:
    """Say whether a request needs its negative prompt."""
    return guidance_of(request) > 1


def grid_of(state: RunState, vae: CausalVaeConfig) -> tuple[int, int]:
    """Return the rows and columns of tokens of the image that is made.

    A side that the request leaves open is that of the condition ``size`` (width and height), which stages before set.
    """
    width, height = state.conditions.get("size", (None, None))
    pixels = vae.spatial_factor * _PACKED
    return planned(state.request.height or height) // pixels, planned(state.request.width or width) // pixels


def encode_prompt(text_encoder: Qwen2TextEncoder, tokenizer: Qwen2Tokenizer, prompt: str) -> torch.Tensor:
    """Return the states (1, tokens, size) of a prompt for text to image, without those of its template."""
    (states,) = text_encoder.encode([prompt_tokens(tokenizer, prompt)])
    return states[None, TEXT_TO_IMAGE.num_dropped_tokens :]


@frozen(eq=False)
class _Branch:
    """One half of guidance, or both of several runs as one batch: the text and the rotations that fit its length."""

    text: TextCondition
    rotary: JointRotary


@frozen(eq=False)
class _Shared:
    """What the steps of one run share."""

    #: With the text, and where there is guidance without it.
    branches: Sequence[_Branch]
    modulations: Sequence[StepModulation]
    scale: float


@frozen(eq=False)
class Reference:
    """An image that is edited or taken from: its packed latents (1, rows * columns, channels)."""

    tokens: torch.Tensor
    rows: int
    columns: int


class PreparePicture:
    """Draw the noise and compute once what all steps share: text projections, rotations, modulations.

    :param can_mask: whether the transformer's attention takes a mask, without which texts of different lengths can
        not be in one batch.
    """

    name = "prepare"

    def __init__(
        self,
        transformer: QwenImageTransformer,
        settings: FlowMatchEulerSettings,
        vae: CausalVaeConfig,
        residency: Residency,
        *,
        can_mask: bool = True,
    ) -> None:
        self._transformer = transformer
        self._settings = settings
        self._vae = vae
        self._residency = residency
        self._can_mask = can_mask

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set schedule, latents (1, tokens, channels), predict and join, and hold for a run with a mask.

        The conditions ``references`` and ``start`` are optional.
        """
        request = state.request
        rows, columns = grid_of(state, self._vae)
        references: list[Reference] = state.conditions.get("references", [])
        grids = [(1, rows, columns), *((1, reference.rows, reference.columns) for reference in references)]
        self._residency.use("transformer")
        dtype = state.conditions["text"].dtype  # of the noise too: in another dtype a seed draws other values
        channels = self._vae.z_dim
        noise = torch.randn(
            (1, 1, channels, rows * _PACKED, columns * _PACKED),
            generator=state.generator,
            dtype=dtype,
            device=state.generator.device,
        )
        num_steps = planned(request.num_inference_steps)
        schedule = self._settings.start(
            num_steps,
            num_image_tokens=rows * columns,
            sigmas=np.linspace(1.0, 1 / num_steps, num_steps).tolist(),
            device=state.generator.device,
        )
        schedule, latents = begin(state, schedule, noise[:, 0])
        state.schedule, state.latents = schedule, pack(latents)
        start: Start | None = state.conditions.get("start")
        if start is not None:
            state.hold = start.hold(schedule, pack(noise[:, 0]), pack)
        shared = state.conditions["shared"] = _Shared(
            branches=[
                self._branch(state.conditions[name], grids)
                for name in ("text", "negative_text")
                if name in state.conditions
            ],
            modulations=self._transformer.modulations(schedule.timesteps),
            scale=guidance_of(request),
        )
        if self._can_mask and not references and pays_to_join(rows * columns, state.generator.device.type):
            state.join = self._join
            state.predict = self._join([state])
        else:
            state.predict = self._predictor(shared, references)

    def _branch(self, states: torch.Tensor, grids: list[tuple[int, int, int]]) -> _Branch:
        text = self._transformer.prepare_text(states)
        return _Branch(text, self._transformer.rope(grids, text.tokens.shape[1]))

    def _join(self, states: Sequence[RunState]) -> Predict:
        """Return the prediction for several runs: all of them, with and without their text, are one batch."""
        runs: list[_Shared] = [state.conditions["shared"] for state in states]
        branches = [run.branches[place] for place in range(len(runs[0].branches)) for run in runs]
        batch = _batch_of(branches)
        transformer, residency = self._transformer, self._residency
        modulations, scale, repeats = runs[0].modulations, runs[0].scale, len(runs[0].branches)

        def predict(latents: torch.Tensor, index: int) -> torch.Tensor:
            residency.use("transformer")
            samples = latents if repeats == 1 else latents.repeat(repeats, 1, 1)
            velocity = transformer(samples, batch.text, batch.rotary, modulations[index])
            return velocity if repeats == 1 else guide(*velocity.chunk(repeats), scale=scale)

        return predict

    def _predictor(self, shared: _Shared, references: list[Reference]) -> Predict:
        transformer, residency = self._transformer, self._residency
        branches, modulations, scale = shared.branches, shared.modulations, shared.scale

        def predict(latents: torch.Tensor, index: int) -> torch.Tensor:
            residency.use("transformer")
            tokens = torch.cat((latents, *(reference.tokens for reference in references)), dim=1)
            velocities = [transformer(tokens, branch.text, branch.rotary, modulations[index]) for branch in branches]
            velocities = [velocity[:, : latents.shape[1]] for velocity in velocities]  # the references stay as they are
            return velocities[0] if len(velocities) == 1 else guide(*velocities, scale=scale)

        return predict


def _batch_of(branches: Sequence[_Branch]) -> _Branch:
    """Return branches of one sample each as one: shorter texts are padded, and the padding does not count."""
    tokens = [branch.text.tokens for branch in branches]
    longest = max(branches, key=lambda branch: branch.text.tokens.shape[1])
    length = longest.text.tokens.shape[1]
    padded = torch.cat([functional.pad(each, (0, 0, 0, length - each.shape[1])) for each in tokens])
    lengths = torch.tensor([each.shape[1] for each in tokens], device=padded.device)
    mask = None if bool((lengths == length).all()) else torch.arange(length, device=padded.device) < lengths[:, None]
    return _Branch(TextCondition(padded, mask), longest.rotary)


def guide(velocity: torch.Tensor, negative: torch.Tensor, *, scale: float) -> torch.Tensor:
    """Return the guided velocity, brought back to the length that ``velocity`` has at each token.

    Classifier-free guidance (arXiv:2207.12598) with the norm cap of the Qwen-Image pipeline.
    """
    guided = negative + scale * (velocity - negative)
    length: torch.Tensor = torch.linalg.vector_norm(velocity, dim=-1, keepdim=True)
    guided_length: torch.Tensor = torch.linalg.vector_norm(guided, dim=-1, keepdim=True)
    return guided * (length / guided_length)


def unpacked(state: RunState, vae: CausalVaeConfig) -> torch.Tensor:
    """Return the latents (1, channels, 1, height, width) of a run."""
    assert state.latents is not None
    return unpack(state.latents, *grid_of(state, vae))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return tokens (batch, rows * columns, channels * 4) of latents (batch, channels, 2 * rows, 2 * columns)."""
    batch, channels, height, width = latents.shape
    squares = latents.reshape(batch, channels, height // _PACKED, _PACKED, width // _PACKED, _PACKED)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return latents (batch, channels, 1, 2 * rows, 2 * columns) of tokens (batch, rows * columns, channels * 4)."""
    squares = tokens.reshape(len(tokens), rows, columns, -1, _PACKED, _PACKED)
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)[:, :, None]
