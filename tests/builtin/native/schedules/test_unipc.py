"""Steps of UniPC against UniPCMultistepScheduler of diffusers."""

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from sglang_core import RequestError
from sglang_plugins_builtin.native.schedules.reading import read_schedule

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def config_of(scheduler):
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


@pytest.mark.parametrize(
    "settings",
    [
        {"flow_shift": 3.0},
        {"flow_shift": 5.0, "solver_order": 3},
        {"flow_shift": 1.0, "solver_order": 1},
        {"flow_shift": 12.0, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"flow_shift": 8.0, "solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"flow_shift": 3.0, "solver_type": "midpoint"},
        {"flow_shift": 3.0, "final_sigmas_type": "sigma_min"},
        {"flow_shift": 3.0, "disable_corrector": [0, 4]},
        {"flow_shift": 3.0, "shift_terminal": 0.1},
        {"flow_shift": 3.0, "solver_order": 1, "lower_order_final": False},
        {"flow_shift": 3.0, "num_train_timesteps": 500},
    ],
    ids=str,
)
@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_unipc_takes_the_steps_of_diffusers(settings, num_steps, trajectories, distance):
    if settings.get("shift_terminal") and num_steps == 1:
        pytest.skip("one level can not be stretched")
    scheduler = UniPCMultistepScheduler(**FLOW, **settings)
    scheduler.set_timesteps(num_steps)
    schedule = read_schedule(config_of(scheduler), "scheduler_config.json").start(num_steps)

    assert len(schedule) == num_steps
    assert torch.equal(schedule.timesteps, scheduler.timesteps)
    assert torch.equal(schedule.sigmas, scheduler.sigmas)
    for latents, expected in trajectories(scheduler, schedule):
        assert distance(latents, expected) < 1e-6  # float32 rounds at 6e-8, a step has a dozen operations


def test_bh1_ends_at_the_last_prediction():
    config = {"_class_name": "UniPCMultistepScheduler", **FLOW, "solver_type": "bh1"}
    schedule = read_schedule(config, "scheduler_config.json").start(1)  # diffusers: 0 times infinity
    latents, prediction = torch.randn(1, 2, 1, 4, 4), torch.randn(1, 2, 1, 4, 4)

    clean = schedule.step(prediction, 0, latents)

    torch.testing.assert_close(clean, latents - schedule.sigmas[0] * prediction)


def test_one_step_that_should_end_at_a_level_is_refused():
    config = {"_class_name": "UniPCMultistepScheduler", **FLOW, "shift_terminal": 0.1}

    with pytest.raises(RequestError, match=r"the noise schedule ends at 0\.1, which takes more steps than 1"):
        read_schedule(config, "scheduler_config.json").start(1)


def test_a_shift_replaces_the_models_own():
    scheduler = UniPCMultistepScheduler(**FLOW, flow_shift=8.0)
    scheduler.set_timesteps(6)
    schedule = read_schedule({**config_of(scheduler), "flow_shift": 3.0}, "scheduler_config.json").start(
        6, flow_shift=8.0
    )

    assert torch.equal(schedule.sigmas, scheduler.sigmas)


def test_runs_of_one_schedule_do_not_know_each_other():
    settings = read_schedule({"_class_name": "UniPCMultistepScheduler", **FLOW}, "scheduler_config.json")
    prediction, latents = torch.ones(1, 2, 1, 2, 2), torch.zeros(1, 2, 1, 2, 2)
    first = settings.start(4)
    alone = [latents := first.step(prediction, index, latents) for index in range(4)]

    one, other = settings.start(4), settings.start(4)
    latents = torch.zeros(1, 2, 1, 2, 2)
    beside = []
    for index in range(4):
        other.step(torch.randn(1, 2, 1, 2, 2), index, torch.randn(1, 2, 1, 2, 2))
        latents = one.step(prediction, index, latents)
        beside.append(latents)

    assert all(torch.equal(left, right) for left, right in zip(alone, beside, strict=True))


def test_predictions_of_less_precision_are_not_rounded_again():
    settings = read_schedule({"_class_name": "UniPCMultistepScheduler", **FLOW}, "scheduler_config.json")
    latents, prediction = torch.randn(1, 2, 1, 4, 4), torch.randn(1, 2, 1, 4, 4).bfloat16()

    rounded, exact = (settings.start(3).step(each, 0, latents) for each in (prediction, prediction.float()))

    assert torch.equal(rounded, exact)
