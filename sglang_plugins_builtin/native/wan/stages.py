"""The stages of Wan: prompts and images to conditions, noise and tables, and latents to a clip."""

import math
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch.nn import functional

from sglang_core import GenerationRequest, StepControl, load_images

from ..causal_vae.config import CausalVaeConfig, Tiling
from ..causal_vae.latents import normalise
from ..causal_vae.model import CausalVae
from ..engine import Predict, Residency, RunState, pays_to_join, planned, scaled, to_pixels
from ..schedules.settings import ScheduleSettings
from .block import StepModulation
from .conditions import first_frame_condition, image_condition, token_timesteps, with_first_frame
from .image_encoder import ImageEncoder
from .prompts import clean_prompt
from .text_encoder import UMT5Encoder
from .tokenizer import UMT5Tokenizer
from .transformer import TextCondition, WanTransformer


def is_guided(request: GenerationRequest) -> bool:
    """Say whether a request is guided: the first scale decides for both experts, as in the pipeline of diffusers."""
    return (request.guidance_scale or 1.0) > 1


def encode_prompt(text_encoder: UMT5Encoder, tokenizer: UMT5Tokenizer, prompt: str) -> torch.Tensor:
    """Return the states (1, tokens, size) of a prompt."""
    ids = torch.tensor([tokenizer(clean_prompt(prompt))], device=text_encoder.shared.weight.device)
    states: torch.Tensor = text_encoder(ids)
    return states


class EncodeImage:
    """Encode the first frame: its latents, and for Wan 2.1 what CLIP sees in it."""

    name = "encode image"

    def __init__(
        self,
        vae: CausalVae,
        image_encoder: ImageEncoder | None,
        residency: Residency,
        tiling: Tiling | None,
        *,
        only_first_frame: bool,
    ) -> None:
        self._vae = vae
        self._image_encoder = image_encoder
        self._residency = residency
        self._tiling = tiling
        self._only_first_frame = only_first_frame

    def num_steps(self, state: RunState) -> None:
        """Return nothing: how long it takes depends on the number of frames."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set ``image_states``, and ``first_frame`` or ``image_latents``.

        :raises RequestError: if the image can not be used.
        """
        request = state.request
        (image,) = load_images(request.image_path)
        if self._image_encoder is not None:
            self._residency.use("image_encoder")
            state.conditions["image_states"] = self._image_encoder(image)
        control.check()
        self._residency.use("vae")
        size = planned(request.width), planned(request.height)
        frame = to_pixels(scaled(image, size)).to(self._residency.device)

        def encode(clip: torch.Tensor) -> torch.Tensor:
            latents = self._vae.encode(clip, tiling=self._tiling, check=control.check)
            return normalise(latents.float(), self._vae.config)

        if self._only_first_frame:
            state.conditions["first_frame"] = first_frame_condition(encode, frame)
            return
        state.conditions["image_latents"] = image_condition(
            encode,
            frame,
            num_frames=planned(request.num_frames),
            temporal_factor=self._vae.config.temporal_factor,
        )


@frozen(eq=False)
class Expert:
    """One transformer, and the component it is."""

    name: str
    transformer: WanTransformer


@frozen(eq=False)
class _Prepared:
    """What the steps of one expert share in one run."""

    texts: Sequence[TextCondition]
    modulations: Sequence[StepModulation]


class PrepareClip:
    """Draw the noise and set up the prediction; each expert computes what its steps share when its turn comes."""

    name = "prepare"

    def __init__(
        self,
        experts: Sequence[Expert],
        settings: ScheduleSettings,
        vae: CausalVaeConfig,
        residency: Residency,
        *,
        boundary_ratio: float | None,
        has_token_timesteps: bool,
    ) -> None:
        self._experts = experts
        self._settings = settings
        self._vae = vae
        self._residency = residency
        self._boundary_ratio = boundary_ratio
        self._has_token_timesteps = has_token_timesteps

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set schedule, latents (1, channels, frames, height, width) in float32, predict, and join."""
        request = state.request
        shape = (
            1,
            self._vae.z_dim,
            self._vae.num_latent_frames(planned(request.num_frames)),
            planned(request.height) // self._vae.spatial_factor,
            planned(request.width) // self._vae.spatial_factor,
        )
        state.latents = torch.randn(shape, generator=state.generator, device=state.generator.device)
        schedule = self._settings.start(planned(request.num_inference_steps))
        state.schedule = schedule
        state.conditions["timesteps"] = schedule.timesteps
        names = [name for name in ("text", "negative_text") if name in state.conditions]
        grid = self._experts[0].transformer.grid(*shape[2:])
        if not request.image_path and pays_to_join(math.prod(grid), state.generator.device.type):
            state.join = self._join
            state.predict = self._join([state])
        else:
            state.predict = self._predictor(state, [state.conditions[name] for name in names])

    def _join(self, states: Sequence[RunState]) -> Predict:
        """Return the prediction for several runs: all of them, with and without their text, are one batch.

        Zeros after a text are what Wan attends to after it anyway, so texts of different lengths need no mask.
        """
        names = [name for name in ("text", "negative_text") if name in states[0].conditions]
        texts = [state.conditions[name] for name in names for state in states]
        length = max(text.shape[1] for text in texts)
        padded = torch.cat([functional.pad(text, (0, 0, 0, length - text.shape[1])) for text in texts])
        return self._predictor(states[0], [padded], num_branches=len(names))

    def _predictor(self, state: RunState, texts: Sequence[torch.Tensor], num_branches: int | None = None) -> Predict:
        """Return the prediction for a run, or for several that have everything but text and noise from ``state``.

        :param texts: states of text and negative text (batch, tokens, size); with ``num_branches`` one tensor with
            both, one after the other in the batch.
        """
        request, conditions, timesteps = state.request, state.conditions, state.conditions["timesteps"]
        assert state.latents is not None
        size = tuple(state.latents.shape[2:])
        first = self._experts[0].transformer
        rope = first.rope(*size, device=self._residency.device)
        told = timesteps
        if self._has_token_timesteps and "first_frame" in conditions:
            told = token_timesteps(timesteps, first.grid(*size), first_is_given=True)
        active = [self._expert_at(float(timestep)) for timestep in timesteps]
        scale = request.guidance_scale or 1.0
        scales = (scale, scale if request.guidance_scale_2 is None else request.guidance_scale_2)
        prepared: dict[int, _Prepared] = {}  # of the expert whose turn it is: it goes with the run

        def predict(latents: torch.Tensor, index: int) -> torch.Tensor:
            number = active[index]
            expert = self._experts[number]
            self._residency.use(expert.name)
            if number not in prepared:
                prepared.clear()
                prepared[number] = self._prepare(expert.transformer, texts, conditions.get("image_states"), told)
            shown, shared = _shown(latents, conditions), prepared[number]
            if num_branches is not None:
                samples = shown.repeat(num_branches, 1, 1, 1, 1)
                joined = expert.transformer(samples, shared.texts[0], rope, shared.modulations[index])
                flows: Sequence[torch.Tensor] = joined.chunk(num_branches)
            else:
                flows = [expert.transformer(shown, text, rope, shared.modulations[index]) for text in shared.texts]
            if len(flows) == 1:
                return flows[0]
            flow, negative = flows
            return negative + scales[number] * (flow - negative)

        return predict

    def _expert_at(self, timestep: float) -> int:
        if self._boundary_ratio is None:
            return 0
        return 0 if timestep >= self._boundary_ratio * self._settings.num_train_timesteps else 1

    def _prepare(
        self,
        transformer: WanTransformer,
        texts: Sequence[torch.Tensor],
        image_states: torch.Tensor | None,
        timesteps: torch.Tensor,
    ) -> _Prepared:
        return _Prepared(
            texts=[transformer.prepare_text(each, image_states) for each in texts],
            modulations=transformer.modulations(timesteps.to(self._residency.device)),
        )


def _shown(latents: torch.Tensor, conditions: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return what a transformer sees: the latents, with what is known of the first frame."""
    if "first_frame" in conditions:
        return with_first_frame(latents, conditions["first_frame"])
    if "image_latents" in conditions:
        return torch.cat([latents, conditions["image_latents"]], dim=1)
    return latents


def finished(state: RunState) -> torch.Tensor:
    """Return the latents of a run, with the first frame that was given."""
    assert state.latents is not None
    if "first_frame" in state.conditions:
        return with_first_frame(state.latents, state.conditions["first_frame"])
    return state.latents
