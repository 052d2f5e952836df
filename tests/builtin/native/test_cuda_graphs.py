"""When recorded steps are planned, and why not."""

from types import SimpleNamespace
from typing import Any

import pytest
from tiny_qwen_images import EMBEDDED

from sglang_core import Choice, UnavailableError, create_plugin_manager, plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.native.cuda_graphs import CudaGraphs

LABEL = "argument 'enable_cuda_graphs'"


def planned(**settings: Any) -> Any:
    manager = create_plugin_manager(only_built_ins=True)
    asked = {"prompt": "x", "model_path": str(EMBEDDED), "backend": "sglang", "device": "cpu", **settings}
    return plan_run(manager, make_settings(manager, **asked)).plan


def on_a_gpu(attention: str = "torch_sdpa", residency: str = "resident", **settings: Any) -> Any:
    """Return what a plan for a GPU says, as far as the transform reads it."""
    plan = planned()
    manager = create_plugin_manager(only_built_ins=True)
    choice = Choice(value=attention, reason="test", is_automatic=False)
    component = SimpleNamespace(residency=Choice(value=residency, reason="test", is_automatic=False))
    return SimpleNamespace(
        settings=make_settings(manager, enable_cuda_graphs=True, **settings),
        backend=plan.backend,
        device=Choice(value="cuda", reason="test", is_automatic=False),
        components={"text_encoder": SimpleNamespace(residency=Choice.__new__(Choice)), "transformer": component},
        attention=Choice(value="torch_sdpa", reason="test", is_automatic=True),
        component_attention={"transformer.self": choice},
    )


def test_steps_are_not_recorded_unless_asked_for() -> None:
    assert "cuda-graphs" not in [choice.value for choice in planned().transforms]


def test_on_a_gpu_the_plan_names_the_setting() -> None:
    assert CudaGraphs().wanted(on_a_gpu()) == f"{LABEL}: from its third step on a run starts each as a whole"


@pytest.mark.parametrize(
    ("plan", "reason", "remedy"),
    [
        ({"residency": "layerwise-offload"}, "transformer has layerwise-offload", "transformer=resident"),
        ({"residency": "component-offload"}, "transformer has component-offload", "transformer=resident"),
        ({"attention": "sage_attn"}, "attention backend sage_attn can be recorded", "--attention-backend torch_sdpa"),
        ({"enable_torch_compile": True}, "what is compiled can not be recorded", "leave --enable-torch-compile out"),
    ],
)
def test_what_can_not_be_recorded_is_refused_with_a_remedy(plan: dict[str, Any], reason: str, remedy: str) -> None:
    with pytest.raises(UnavailableError) as refused:
        CudaGraphs().wanted(on_a_gpu(**plan))

    assert refused.value.problem.startswith(f"{LABEL} does not apply: ")
    assert reason in refused.value.problem
    assert remedy in refused.value.remedy
    assert refused.value.remedy.endswith(", or leave it out")


@pytest.mark.parametrize(
    ("settings", "reason", "remedy"),
    [
        ({}, "cpu has no CUDA graphs", "use --device cuda"),
        ({"backend": "diffusers"}, "backend diffusers does not record steps", "use --backend sglang"),
    ],
)
def test_a_plan_without_a_gpu_or_the_engine_is_refused(settings: dict[str, Any], reason: str, remedy: str) -> None:
    with pytest.raises(UnavailableError) as refused:
        planned(enable_cuda_graphs=True, **settings)

    assert refused.value.problem == f"{LABEL} does not apply: {reason}"
    assert refused.value.remedy == f"{remedy}, or leave it out"
