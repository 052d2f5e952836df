import pytest

from sglang_core import plan_run
from sglang_core.engine.batching import batch_key, plan_cost
from sglang_core.testing import make_settings


@pytest.fixture
def plan(no_op_manager, tiny_model):
    def plan(**values):
        values = {"model_path": str(tiny_model), "device": "cpu", "prompt": "a circle", **values}
        return plan_run(no_op_manager, make_settings(no_op_manager, **values)).plan

    return plan


def test_prompts_and_seed_may_differ(plan):
    key = batch_key(plan())

    assert key is not None
    assert batch_key(plan(prompt="a square", seed=9)) == key
    assert batch_key(plan(negative_prompt="blue")) == batch_key(plan(negative_prompt="red"))


@pytest.mark.parametrize(
    "values",
    [
        {"width": 24},
        {"num_inference_steps": 5},
        {"guidance_scale": 2.0},
        {"output_file_name": "x.jpeg"},
        {"output_compression": 10},
        {"timeout_s": 5.0},
        {"negative_prompt": "blue"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_everything_else_parts_requests(plan, values):
    assert batch_key(plan(**values)) not in (None, batch_key(plan()))


def test_several_outputs_run_alone(plan):
    assert batch_key(plan(num_outputs_per_prompt=2)) is None


def test_cost_is_steps_times_pixels_times_outputs(plan):
    one = plan_cost(plan(width=16, height=32, num_inference_steps=3))

    assert one == 16 * 32 * 3
    assert plan_cost(plan(width=16, height=32, num_inference_steps=3, num_outputs_per_prompt=4)) == 4 * one
