"""The backend held to its contract, and chosen by name."""

import pytest
import sglang_example_attention

from sglang_core import AttentionNeed, UnavailableError, describe_model, plan_attention
from sglang_core.testing import MemorySource, bare_manager, check_attention_backend, make_settings, tiny_pipeline_files

BACKEND = sglang_example_attention.PlainSoftmax()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_computes_what_it_declares_and_refuses_the_rest(precision):
    check_attention_backend(BACKEND, precision=precision)


@pytest.mark.parametrize("name", ["plain_softmax", "softmax"])
def test_it_is_chosen_by_its_names(name, tmp_path):
    plan = plan_for(AttentionNeed(head_dim=64, num_heads=2, is_cross=True), tmp_path, name)

    assert plan.default.value == "plain_softmax"
    assert plan.lossy == ()


def test_a_model_that_needs_what_it_lacks_is_refused(tmp_path):
    with pytest.raises(UnavailableError) as refused:
        plan_for(AttentionNeed(head_dim=64, num_heads=4, num_kv_heads=2), tmp_path, "plain_softmax")

    assert "does not compute grouped key heads" in refused.value.problem


def plan_for(need, folder, name):
    manager = bare_manager(host_options=True)
    manager.register(sglang_example_attention, "example_attention")
    settings = make_settings(manager, attention_backend=name)
    model = describe_model(MemorySource("memory/tiny", tiny_pipeline_files(), folder))
    return plan_attention(manager, {"transformer.self": need}, model, settings, "cpu", {"transformer": "fp32"})
