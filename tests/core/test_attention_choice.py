"""Which attention backend each component gets, from settings, capabilities and what is installed."""

import json

import pytest
from attrs import evolve, field, frozen

from sglang_core import (
    AttentionCapabilities,
    AttentionNeed,
    Availability,
    ConfigError,
    PluginError,
    UnavailableError,
    attention_fits,
    attention_of,
    describe_model,
    hookimpl,
    plan_attention,
    plan_lines,
    plan_run,
)
from sglang_core import attention_choice as module_under_test
from sglang_core.receipts import make_receipt
from sglang_core.testing import MemorySource, NoOpBackend, bare_manager, make_settings, tiny_pipeline_files


@frozen(kw_only=True)
class Backend:
    name: str
    aliases: tuple = ()
    order: int | None = None
    is_lossy: bool = False
    capabilities: AttentionCapabilities = AttentionCapabilities()
    parameters: dict = field(factory=dict)
    answer: Availability = Availability.yes()

    def probe(self):
        return self.answer

    def create(self, parameters):
        return (self.name, dict(parameters))


BACKENDS = [
    Backend(
        name="fast",
        aliases=("quick",),
        order=10,
        capabilities=AttentionCapabilities(precisions=("bf16",), head_dims=(64, 128), has_masks=False),
    ),
    Backend(name="plain", order=90),
    Backend(name="absent", order=1, answer=Availability.no("absent is not installed", "pip install absent")),
    Backend(
        name="sparse",
        is_lossy=True,
        capabilities=AttentionCapabilities(has_cross=False),
        parameters={"sparsity": float, "blocks": int, "note": str, "exact_first": bool},
    ),
]
NEEDS = {
    "text_encoder": AttentionNeed(head_dim=64, num_heads=8, has_mask=True),
    "transformer.cross": AttentionNeed(head_dim=128, num_heads=8, is_cross=True),
    "transformer.self": AttentionNeed(head_dim=128, num_heads=8),
    "transformer_2.self": AttentionNeed(head_dim=128, num_heads=8),
}
PRECISIONS = {"transformer": "bf16", "transformer_2": "bf16", "text_encoder": "bf16", "vae": "fp32"}


class Plugin:
    def __init__(self, backends):
        self.backends = backends

    @hookimpl
    def sglang_register_attention_backends(self):
        return self.backends


def manager_with(*backends):
    manager = bare_manager(host_options=True)
    manager.register(Plugin(list(backends)), "kernels")
    return manager


@pytest.fixture
def model(tmp_path):
    model = describe_model(MemorySource("tiny", tiny_pipeline_files(), tmp_path))
    second = evolve(model.components["transformer"], name="transformer_2")
    return evolve(model, components={**model.components, "transformer_2": second})


@pytest.fixture
def plan(model):
    def make(needs=NEEDS, backends=BACKENDS, device="cpu", precisions=PRECISIONS, **settings):
        manager = manager_with(*backends)
        return plan_attention(manager, needs, model, make_settings(manager, **settings), device, precisions)

    return make


def values(plan):
    return {key: choice.value for key, choice in plan.by_role.items()}


def test_without_a_wish_each_takes_the_first_in_order_that_is_there_and_fits(plan):
    made = plan()

    assert values(made) == {
        "transformer.self": "fast",
        "transformer.cross": "fast",
        "transformer_2.self": "fast",
        "text_encoder": "plain",
    }
    assert made.default is made.by_role["transformer.self"]
    assert made.default.is_automatic
    assert made.default.reason == "the first that fits; not absent: absent is not installed"
    assert "not fast: it does not compute masks" in made.by_role["text_encoder"].reason
    assert made.warnings == ()


def test_role_wins_over_component_over_global(plan):
    made = plan(
        attention_backend="plain",
        component_attention_backends={"transformer": "fast", "transformer.cross": "plain"},
    )

    assert values(made) == {
        "transformer.self": "fast",
        "transformer.cross": "plain",
        "transformer_2.self": "fast",
        "text_encoder": "plain",
    }
    assert not made.by_role["transformer.cross"].is_automatic
    assert made.by_role["text_encoder"].reason == "argument 'attention_backend'"


def test_the_second_transformer_has_entries_of_its_own_before_those_of_the_first(plan):
    made = plan(component_attention_backends={"transformer": "plain", "transformer_2": "fast"})

    assert values(made)["transformer.self"] == "plain"
    assert values(made)["transformer_2.self"] == "fast"


@pytest.mark.parametrize("name", ["QUICK", " fast", "quick"])
def test_aliases_and_other_spellings_lead_to_the_name(plan, name):
    needs = {"transformer.self": NEEDS["transformer.self"]}

    assert plan(needs, attention_backend=name).default.value == "fast"


def test_an_encoder_that_a_global_choice_cannot_serve_takes_another_with_a_warning(plan):
    made = plan(attention_backend="fast")

    assert values(made)["text_encoder"] == "plain"
    assert made.warnings == (
        "argument 'attention_backend' fast does not serve text_encoder, which uses plain: it does not compute masks",
    )


def test_a_backend_without_cross_attention_leaves_it_to_others_with_a_warning(plan):
    made = plan(component_attention_backends={"transformer": "sparse"})

    assert values(made)["transformer.self"] == "sparse"
    assert values(made)["transformer.cross"] == "fast"
    assert "sparse does not serve transformer.cross, which uses fast" in made.warnings[0]


def test_a_lossy_choice_is_said_in_the_plan(plan):
    made = plan(component_attention_backends={"transformer.self": "sparse"})

    assert made.lossy == ("sparse",)
    assert made.by_role["transformer.self"].reason.endswith("; lossy")
    assert made.warnings == (
        "attention backend sparse is lossy: transformer.self, transformer_2.self differs from exact attention by more "
        "than rounding",
    )


NO_DOWNGRADE = {
    "not installed": ({"attention_backend": "absent"}, "absent is not installed", "pip install absent"),
    "global, precision": (
        {"attention_backend": "fast", "precisions": {**PRECISIONS, "transformer": "fp32"}},
        "fast can not serve transformer.self: it computes in bf16, not in fp32",
        "use --precision bf16",
    ),
    "component, mask": (
        {"component_attention_backends": {"text_encoder": "fast"}},
        "text_encoder fast can not serve text_encoder: it does not compute masks",
        "--component-attention-backends",
    ),
    "role, cross": (
        {"component_attention_backends": {"transformer.cross": "sparse"}},
        "sparse can not serve transformer.cross: it does not compute cross attention",
        "choose another backend",
    ),
}


@pytest.mark.parametrize(("given", "problem", "remedy"), NO_DOWNGRADE.values(), ids=NO_DOWNGRADE)
def test_a_choice_that_cannot_serve_is_an_error(plan, given, problem, remedy):
    with pytest.raises(UnavailableError) as refused:
        plan(**given)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


REFUSED = {
    "unknown name": (
        {"attention_backend": "fsat"},
        "argument 'attention_backend': unknown attention backend 'fsat' (known: absent, fast, plain, sparse)",
        "use 'fast'",
    ),
    "unknown component": (
        {"component_attention_backends": {"transfomer": "fast"}},
        "unknown component with attention of tiny 'transfomer'",
        "use 'transformer'",
    ),
    "no attention": (
        {"component_attention_backends": {"vae": "fast"}},
        "vae of tiny has no attention that can be chosen",
        "use one of: text_encoder",
    ),
    "unknown role": (
        {"component_attention_backends": {"transformer.joint": "fast"}},
        "'joint' of 'transformer.joint' is no role of attention",
        "use .self or .cross",
    ),
    "role it does not have": (
        {"component_attention_backends": {"text_encoder.cross": "fast"}},
        "text_encoder of tiny has no cross attention",
        "use text_encoder",
    ),
    "parameter of another": (
        {"attention_backend_config": {"sparsity": 0.5}},
        "'sparsity' is a parameter of sparse, but the plan uses fast, plain",
        "add --attention-backend sparse",
    ),
    "unknown parameter": (
        {"component_attention_backends": {"transformer": "sparse"}, "attention_backend_config": {"sparsty": 0.5}},
        "no attention backend of the plan (sparse, fast, plain) has a parameter 'sparsty'",
        "use 'sparsity'",
    ),
    "wrong type": (
        {"component_attention_backends": {"transformer": "sparse"}, "attention_backend_config": {"blocks": 1.5}},
        "blocks of sparse: expected a whole number, not 1.5",
        "give a whole number",
    ),
    "a truth is no number": (
        {"component_attention_backends": {"transformer": "sparse"}, "attention_backend_config": {"sparsity": True}},
        "sparsity of sparse: expected a number, not True",
        "give a number",
    ),
}


@pytest.mark.parametrize(("given", "problem", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_means_nothing_is_refused_by_name(plan, given, problem, remedy):
    with pytest.raises(ConfigError) as refused:
        plan(**given)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_nothing_that_fits_is_an_error_with_every_reason(plan):
    with pytest.raises(UnavailableError) as refused:
        plan(backends=[BACKENDS[0], BACKENDS[2]])

    assert "no attention backend can serve text_encoder on cpu" in refused.value.problem
    assert "absent: absent is not installed" in refused.value.problem


@pytest.mark.parametrize(
    ("found", "is_fit", "reason"),
    [
        ((7, 5), False, "it needs compute capability 8.0, this GPU has 7.5"),
        ((9, 0), True, ""),
        ((12, 0), False, "it runs below compute capability 12.0, this GPU has 12.0"),
        (None, False, "it needs an NVIDIA GPU, and the driver names none"),
    ],
)
def test_the_compute_capability_counts_on_cuda(monkeypatch, found, is_fit, reason):
    monkeypatch.setattr(module_under_test, "compute_capability", lambda: found)
    can = AttentionCapabilities(min_compute_capability=(8, 0), below_compute_capability=(12, 0))
    need = AttentionNeed(head_dim=64, num_heads=1)

    answer = attention_fits(Backend(name="a", capabilities=can), need, "cuda", "bf16")

    assert (answer.is_available, answer.reason) == (is_fit, reason)


@pytest.mark.parametrize(
    ("can", "need", "reason"),
    [
        ({"devices": ("cuda",)}, {}, "it runs on cuda, not on cpu"),
        ({"head_dims": (32, 64)}, {"head_dim": 40}, "it takes heads of size 32, 64, not 40"),
        ({"max_head_dim": 32}, {}, "it takes heads up to size 32, not 64"),
        ({"has_grouped_heads": False}, {"num_kv_heads": 1}, "it does not compute grouped key heads"),
        ({"has_lse": False}, {"needs_lse": True}, "it does not compute the log-sum-exp"),
        ({"has_causal": False}, {"is_causal": True}, "it does not compute causal attention"),
    ],
)
def test_declared_limits_are_checked_by_the_host(can, need, reason):
    backend = Backend(name="a", capabilities=AttentionCapabilities(**can))

    answer = attention_fits(backend, AttentionNeed(**{"head_dim": 64, "num_heads": 8, **need}), "cpu", "bf16")

    assert answer.reason == reason
    assert answer.remedy


class Attending(NoOpBackend):
    """A backend that plans its attention with the host."""

    manager = None

    def choose_attention(self, model, settings, device, precisions):
        return plan_attention(
            self.manager, {"transformer.self": NEEDS["transformer.self"]}, model, settings, device, {}
        )


@pytest.fixture
def run_plan(manager, tiny_model):
    class Engine:
        @hookimpl
        def sglang_register_execution_backends(self, manager):
            Attending.manager = manager
            names = ("attention_backend", "attention_backend_config", "component_attention_backends")
            return [Attending(order=-1, honours=names)]

    manager.register(Plugin(BACKENDS), "kernels")
    manager.register(Engine(), "attending")

    def make(**settings):
        return plan_run(manager, make_settings(manager, prompt="a", model_path=str(tiny_model), **settings)).plan

    return make


def test_explain_and_receipt_say_what_attends(run_plan):
    made = run_plan(component_attention_backends={"transformer.self": "sparse"})

    lines = list(plan_lines(made))
    assert "attention   sparse  (argument 'component_attention_backends' transformer.self; lossy)" in lines
    assert "  transformer.self sparse" in lines
    assert any(line.startswith("warning     attention backend sparse is lossy") for line in lines)
    shown = json.loads(json.dumps(made.to_json()))
    assert shown["component_attention"]["transformer.self"]["value"] == "sparse"
    assert shown["lossy_attention"] == ["sparse"]
    receipt = make_receipt(made, made.requests[0])["plan"]
    assert receipt["component_attention"] == {"transformer.self": "sparse"}
    assert receipt["lossy_attention"] == ["sparse"]
    assert receipt["settings"]["component_attention_backends"] == {"transformer.self": "sparse"}


def test_a_family_gets_each_backend_once_with_its_parameters(run_plan):
    made = run_plan(
        component_attention_backends={"transformer": "sparse"}, attention_backend_config={"sparsity": 1, "note": "x"}
    )
    find = attention_of(Attending.manager, made)

    assert find("transformer", "self").attention == ("sparse", {"sparsity": 1.0, "note": "x"})
    assert find("transformer", "self").attention is find("transformer", "self").attention
    assert find("transformer", "self").capabilities is Attending.manager.attention_backends.get("sparse").capabilities


def test_attention_that_was_not_planned_is_the_fault_of_the_family(run_plan):
    with pytest.raises(PluginError) as refused:
        attention_of(Attending.manager, run_plan())("vae", "self")

    assert refused.value.problem == "no attention was planned for vae.self of NoOpPipeline"
    assert refused.value.remedy == "name it in attention_needs() of the model family"
