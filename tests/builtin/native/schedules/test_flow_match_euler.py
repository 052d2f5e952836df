"""Noise levels and Euler steps against FlowMatchEulerDiscreteScheduler of diffusers."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from sglang_core import RequestError
from sglang_plugins_builtin.native.schedules.reading import read_schedule
from sglang_plugins_builtin.native.schedules.settings import FlowMatchEulerSettings

CONFIGS = {
    "plain": {},
    "shifted": {"shift": 3.0},
    "dynamic": {"use_dynamic_shifting": True},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "terminal": {"shift": 2.0, "shift_terminal": 0.1},
    "published": {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
        "shift": 1.0,
    },
}


def settings_of(config) -> FlowMatchEulerSettings:
    whole = {"_class_name": "FlowMatchEulerDiscreteScheduler", **config}
    return read_schedule(whole, "scheduler_config.json", shifts_by_size=True)


def even(num_steps: int) -> list[float]:
    """Noise levels as the pipelines of Qwen-Image give them."""
    return np.linspace(1.0, 1 / num_steps, num_steps).tolist()


def vanilla_schedule(config, num_steps: int, num_image_tokens: int, sigmas=None):
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(num_image_tokens, *(scheduler.config[name] for name in names))
    sigmas = even(num_steps) if sigmas is None else sigmas
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    scheduler.set_begin_index(0)
    return scheduler


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("num_steps", [2, 3, 20, 50])
@pytest.mark.parametrize("num_image_tokens", [1, 64, 4096, 12000])
def test_noise_levels_equal_those_of_diffusers_to_the_bit(config, num_steps, num_image_tokens) -> None:
    vanilla = vanilla_schedule(config, num_steps, num_image_tokens)

    schedule = settings_of(config).start(num_steps, num_image_tokens=num_image_tokens, sigmas=even(num_steps))

    assert len(schedule) == num_steps
    assert torch.equal(schedule.sigmas, vanilla.sigmas)
    assert torch.equal(schedule.timesteps, vanilla.timesteps)


def test_noise_levels_of_ones_own_are_shifted_like_the_others() -> None:
    own = [1.0, 0.7, 0.2]
    vanilla = vanilla_schedule({"shift": 3.0}, 3, 64, own)

    schedule = FlowMatchEulerSettings(shift=3.0).start(3, sigmas=own)

    assert torch.equal(schedule.sigmas, vanilla.sigmas)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_equal_those_of_diffusers_to_the_bit(dtype) -> None:
    vanilla = vanilla_schedule(CONFIGS["published"], 5, 300)
    schedule = settings_of(CONFIGS["published"]).start(5, num_image_tokens=300, sigmas=even(5))
    generator = torch.Generator().manual_seed(0)
    ours = theirs = torch.randn(2, 6, 4, generator=generator).to(dtype)

    for index, timestep in enumerate(vanilla.timesteps):
        prediction = torch.randn(2, 6, 4, generator=generator).to(dtype)
        theirs = vanilla.step(prediction, timestep, theirs, return_dict=False)[0]
        ours = schedule.step(prediction, index, ours)

    assert ours.dtype == dtype
    assert torch.equal(ours, theirs)


def test_one_step_is_from_noise_to_image() -> None:
    assert FlowMatchEulerSettings(shift=3.0).start(1).sigmas.tolist() == [1.0, 0.0]


def test_one_step_that_should_end_at_a_level_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        settings_of(CONFIGS["published"]).start(1, num_image_tokens=64)

    assert refused.value.problem == "the noise schedule ends at 0.02, which takes more steps than 1"
    assert refused.value.remedy == "use --num-inference-steps 2 or more"


@pytest.mark.parametrize("settings", [{}, {"shift": 3.0}, {"shift": 5.0, "shift_terminal": 0.02}], ids=str)
@pytest.mark.parametrize("num_steps", [2, 10])
def test_levels_over_the_range_of_training_and_steps_are_those_of_diffusers(
    settings, num_steps, trajectories, distance
):
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    scheduler.set_timesteps(num_steps)
    schedule = settings_of(scheduler.config).start(num_steps)

    assert len(schedule) == num_steps
    assert torch.equal(schedule.timesteps, scheduler.timesteps)
    assert torch.equal(schedule.sigmas, scheduler.sigmas)
    for latents, expected in trajectories(scheduler, schedule):
        assert distance(latents, expected) < 1e-6


def test_predictions_of_less_precision_are_not_rounded_again() -> None:
    schedule = FlowMatchEulerSettings().start(3)
    latents, prediction = torch.randn(1, 2, 1, 4, 4), torch.randn(1, 2, 1, 4, 4).bfloat16()

    assert torch.equal(schedule.step(prediction, 0, latents), schedule.step(prediction.float(), 0, latents))
