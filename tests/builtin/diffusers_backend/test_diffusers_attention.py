"""One vocabulary: the attention settings of the host, in the words of diffusers."""

import pytest

from sglang_core import ConfigError, StepControl, UnavailableError
from sglang_plugins_builtin.diffusers_backend.attention import translated
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("torch_sdpa", "native"), ("fa", "flash"), ("FA3", "_flash_3_hub"), ("sage_attn", "sage"), ("flex", "flex")],
)
def test_names_of_the_native_backend_are_translated(name, theirs):
    assert translated(name, "--attention-backend") == theirs


def test_a_name_without_counterpart_is_refused_with_the_nearest():
    with pytest.raises(UnavailableError) as refused:
        translated("torch_sdap", "--attention-backend")

    assert refused.value.problem == "--attention-backend: diffusers has no attention backend 'torch_sdap'"
    assert refused.value.remedy == "use 'torch_sdpa'"


def test_the_choice_is_in_the_plan_and_reaches_the_denoiser_alone(models, make_plan):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry.get_active_backend()[0]
    plan = make_plan(models("qwen"), attention_backend="reference")

    pipeline = DiffusersBackend().load(plan, models("qwen"), StepControl())
    modules = [m for m in pipeline.components["transformer"].modules() if hasattr(m, "processor")]

    assert plan.attention.value == "_native_math"
    assert plan.attention.reason == "argument 'attention_backend' reference"
    assert {module.processor._attention_backend.value for module in modules} == {"_native_math"}
    assert _AttentionBackendRegistry.get_active_backend()[0] == before
    pipeline.close()


def test_a_component_has_its_own(models, make_plan):
    plan = make_plan(models("wan"), component_attention_backends={"transformer": "flex"})

    assert plan.attention.value == "native"
    assert plan.component_attention["transformer"].value == "flex"

    pipeline = DiffusersBackend().load(plan, models("wan"), StepControl())
    processors = [m.processor for m in pipeline.components["transformer"].modules() if hasattr(m, "processor")]
    assert {processor._attention_backend.value for processor in processors} == {"flex"}
    pipeline.close()


def test_a_component_whose_attention_is_fixed_is_an_error_when_it_is_loaded(models, make_plan):
    plan = make_plan(models("stable"), component_attention_backends={"unet": "flex"})

    with pytest.raises(UnavailableError) as refused:
        DiffusersBackend().load(plan, models("stable"), StepControl())

    assert (
        "flex does not apply: nothing in unet (UNet2DConditionModel) can change its attention" in refused.value.problem
    )
    assert refused.value.remedy == "leave it out"


REFUSED = {
    "a contradiction": (
        {"attention_backend": "torch_sdpa", "diffusers_attention_backend": "flex"},
        ConfigError,
        "argument 'attention_backend' torch_sdpa and argument 'diffusers_attention_backend' flex contradict each other",
        "leave one of them out",
    ),
    "a role": (
        {"component_attention_backends": {"transformer.self": "native"}},
        ConfigError,
        "backend diffusers can not choose the self attention of transformer alone",
        "use transformer, without .self",
    ),
    "an unknown component": (
        {"component_attention_backends": {"transfomer": "native"}},
        ConfigError,
        "has no component 'transfomer'",
        "use 'transformer'",
    ),
    "of transformers": (
        {"component_attention_backends": {"text_encoder": "native"}},
        ConfigError,
        "can not choose the attention of text_encoder, which is of transformers",
        "leave text_encoder out",
    ),
    "not installed": (
        {"component_attention_backends": {"transformer": "sage_attn"}},
        UnavailableError,
        "attention backend 'sage' of diffusers needs sageattention",
        "sageattention>=2.1.1",
    ),
    "not on the cpu": (
        {"attention_backend": "torch_cudnn_sdpa"},
        UnavailableError,
        "it does not run on cpu",
        "use 'native'",
    ),
}


@pytest.mark.parametrize(("given", "kind", "problem", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_applied_is_an_error(given, kind, problem, remedy, models, make_plan):
    with pytest.raises(kind) as refused:
        make_plan(models("qwen"), **given)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_both_settings_may_say_the_same(models, make_plan):
    plan = make_plan(models("qwen"), attention_backend="torch_sdpa", diffusers_attention_backend="native")

    assert plan.attention.value == "native"
