from types import SimpleNamespace

import pytest
import torch
from diffusers import WanImageToVideoPipeline

from sglang_plugins_builtin.native.wan.conditions import (
    first_frame_condition,
    image_condition,
    token_timesteps,
    with_first_frame,
)

MEAN, STD = [0.1, -0.2, 0.3], [1.5, 0.5, 2.0]


def encode_raw(clip):
    """Stand in for an autoencoder: 4 frames and 8 x 8 pixels to one, the first frame alone."""
    clip = torch.cat([clip[:, :, :1].expand(-1, -1, 4, -1, -1), clip[:, :, 1:]], dim=2)
    return torch.nn.functional.avg_pool3d(clip, (4, 8, 8)) * 3


def encode(clip):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (MEAN, STD))
    return (encode_raw(clip) - mean) / std


def vanilla(first, last, num_frames, batch, *, expand_timesteps=False):
    """Run the pipeline's own method on the stand-in, without a pipeline."""
    vae = torch.nn.Linear(1, 1)
    vae.dtype = torch.float32
    vae.config = SimpleNamespace(latents_mean=MEAN, latents_std=STD, z_dim=3)
    vae.encode = lambda clip: SimpleNamespace(latents=encode_raw(clip))
    pipeline = SimpleNamespace(
        vae=vae,
        config=SimpleNamespace(expand_timesteps=expand_timesteps),
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=8,
    )
    latents = torch.randn(batch, 3, (num_frames - 1) // 4 + 1, 2, 3, generator=torch.Generator().manual_seed(1))
    return WanImageToVideoPipeline.prepare_latents(
        pipeline,
        first,
        batch,
        num_channels_latents=3,
        height=16,
        width=24,
        num_frames=num_frames,
        dtype=torch.float32,
        device=torch.device("cpu"),
        latents=latents,
        last_image=last,
    )


@pytest.fixture
def frames():
    return torch.rand(2, 1, 3, 16, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_the_first_frame_conditions_as_in_diffusers(num_frames, frames):
    _, expected = vanilla(frames[0], None, num_frames, 2)

    result = image_condition(encode, frames[0], num_frames=num_frames)

    assert result.shape == (1, 4 + 3, (num_frames - 1) // 4 + 1, 2, 3)
    torch.testing.assert_close(result.expand(2, -1, -1, -1, -1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_frames", [5, 13])
def test_first_and_last_frame_condition_as_in_diffusers(num_frames, frames):
    _, expected = vanilla(frames[0], frames[1], num_frames, 1)

    result = image_condition(encode, frames[0], last=frames[1], num_frames=num_frames)

    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_a_given_first_frame_stays_as_in_diffusers(frames):
    latents, condition, mask = vanilla(frames[0], None, 9, 2, expand_timesteps=True)
    expected = (1 - mask) * condition + mask * latents

    result = with_first_frame(latents, first_frame_condition(encode, frames[0]))

    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("first_is_given", [True, False])
def test_timesteps_of_tokens_are_those_of_diffusers(first_is_given):
    timesteps = torch.tensor([999, 640, 3])
    mask = torch.ones(1, 1, 3, 4, 6)
    mask[:, :, 0] = 0 if first_is_given else 1
    expected = [(mask[0][0][:, ::2, ::2] * timestep).flatten() for timestep in timesteps]

    result = token_timesteps(timesteps, (3, 2, 3), first_is_given=first_is_given)

    assert torch.equal(result, torch.stack(expected))
