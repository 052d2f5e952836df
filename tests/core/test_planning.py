import json

import pytest

from sglang_core import (
    Availability,
    CallDescription,
    ConfigError,
    ModelNotFoundError,
    ModelReference,
    RequestError,
    UnavailableError,
    describe_model,
    hookimpl,
    plan_lines,
    plan_run,
)
from sglang_core.testing import MemoryResolver, MemorySource, make_settings, no_op_plugin, tiny_pipeline_files


@pytest.fixture
def plan(manager, tiny_model):
    """Plan with a no-op backend of these settings."""

    def make(no_op=None, model_path=None, **settings):
        if "no_op" not in manager.records:
            manager.register(no_op_plugin(order=-1, **(no_op or {})), "no_op")
        values = {"prompt": "a", "model_path": str(model_path or tiny_model), **settings}
        return plan_run(manager, make_settings(manager, **values)).plan

    return make


VIDEO = {"kind": "video"}

REFUSED = {
    "no prompt": ({}, {"prompt": []}, ConfigError, "there is no prompt", "--prompt"),
    "empty prompt": ({}, {"prompt": ["a", "  "]}, RequestError, "the prompt is empty", "say what to make"),
    "long prompt": (
        {},
        {"prompt": "x" * 100_000},
        RequestError,
        "the prompt has 100,000 characters, at most 10,000 are read",
        "shorten the prompt",
    ),
    "prompt that is no text": ({}, {"prompt": "a\udcff"}, RequestError, "is not text in UTF-8", "write it in UTF-8"),
    "negative prompt that is no text": (
        {},
        {"negative_prompt": "a\udcff"},
        RequestError,
        "argument 'negative_prompt': the prompt is not text in UTF-8",
        "write it in UTF-8",
    ),
    "long negative prompt": (
        {},
        {"negative_prompt": "x" * 10_001},
        RequestError,
        "argument 'negative_prompt': the prompt has 10,001 characters, at most 10,000 are read",
        "shorten the prompt",
    ),
    "two seeds": ({}, {"seed": [1, 2]}, ConfigError, "2 seeds for 1 prompt(s) of 1 output(s)", "give 1, 1 or 1 seeds"),
    "no seeds": ({}, {"seed": []}, ConfigError, "0 seeds for 1 prompt(s)", "give 1"),
    "width off the grid": (
        {},
        {"width": 21},
        RequestError,
        "multiples of 8 pixels, not width 21 and height 16",
        "use --width 24 --height 16",
    ),
    "frames off the grid": (VIDEO, {"num_frames": 8}, RequestError, "4 x n + 1 frames, not 8", "use --num-frames 9"),
    "frames of a picture": (
        {},
        {"num_frames": 5},
        RequestError,
        "does not apply: NoOpPipeline does not make a clip",
        "leave num_frames out",
    ),
    "fps of a picture": ({}, {"fps": 5}, RequestError, "does not make a clip", "leave fps out"),
    "foreign guidance": (
        {},
        {"guidance_scale_2": 3},
        RequestError,
        "argument 'guidance_scale_2' does not apply: NoOpPipeline takes no guidance_scale_2",
        "leave guidance_scale_2 out",
    ),
    "foreign argument": (
        {},
        {"diffusers_kwargs": {"promt": 1}},
        RequestError,
        "promt is no argument of NoOpPipeline",
        "use 'prompt'",
    ),
    "argument twice": (
        {},
        {"diffusers_kwargs": {"width": 16}, "width": 16},
        ConfigError,
        "width is given as --width too",
        "give one of the two",
    ),
    "argument with its own setting": (
        {},
        {"diffusers_kwargs": {"prompt": "b"}},
        ConfigError,
        "prompt is a setting of its own",
        "give it as --prompt",
    ),
    "argument of a wrong type": (
        {},
        {"diffusers_kwargs": {"width": "wide"}},
        ConfigError,
        "argument 'diffusers_kwargs': width: expected a whole number, not 'wide'",
        "give width a whole number",
    ),
    "argument out of range": ({}, {"diffusers_kwargs": {"width": -8}}, ConfigError, "'width' must be >= 1", "give"),
    "image": ({}, {"image_path": "x.png"}, RequestError, "this model takes no image", "leave it out"),
    "ignored setting": (
        {},
        {"vae_precision": "fp32"},
        ConfigError,
        "argument 'vae_precision' does not apply: backend no_op does not honour vae_precision",
        "leave it out",
    ),
    "ignored setting, near one": (
        {"honours": ["precision"]},
        {"vae_precision": "fp32"},
        ConfigError,
        "does not honour vae_precision",
        "use precision",
    ),
    "unknown component": (
        {"honours": ["component_precisions"]},
        {"component_precisions": {"vea": "fp32"}},
        ConfigError,
        "unknown component of",
        "use 'vae'",
    ),
    "component without weights": (
        {"honours": ["component_precisions"]},
        {"component_precisions": {"scheduler": "fp32"}},
        ConfigError,
        "the component scheduler has no weights, so no precision",
        "leave scheduler out",
    ),
    "too many precisions": (
        {"honours": ["text_encoder_precisions"]},
        {"text_encoder_precisions": ["fp32", "fp32"]},
        ConfigError,
        "2 precisions for 1 text encoder(s)",
        "give one, or 1",
    ),
    "unknown backend": (
        {},
        {"backend": "no_opp"},
        ConfigError,
        "argument 'backend': unknown execution backend 'no_opp'",
        "use 'no_op'",
    ),
    "backend that cannot": (
        {"supported": Availability.no("it is too large", "take a smaller one")},
        {"backend": "no_op"},
        UnavailableError,
        "argument 'backend' no_op: it is too large",
        "take a smaller one",
    ),
    "revision of a folder": ({}, {"revision": "main"}, ConfigError, "revision", "leave"),
}


@pytest.mark.parametrize(("backend", "settings", "kind", "problem", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_by_name(backend, settings, kind, problem, remedy, plan):
    with pytest.raises(kind) as refused:
        plan(backend, **settings)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_image_that_is_missing_is_refused(plan, tmp_path):
    call = CallDescription(kind="image", parameters={"prompt": None, "image": None}, required=("image",))

    with pytest.raises(RequestError, match="this model starts from an image") as refused:
        plan({"call": call})
    with pytest.raises(ConfigError, match=r"none\.png: there is no such file"):
        plan(image_path=str(tmp_path / "none.png"))
    (tmp_path / "a.png").write_bytes(b"x")

    assert "--image-path FILE" in refused.value.remedy
    assert plan(image_path=[str(tmp_path / "a.png"), "https://x/y.png"]).requests[0].image_path[1] == "https://x/y.png"


@pytest.mark.parametrize(("most", "shown"), [(1, "one image"), (2, "at most 2 images")])
def test_more_images_than_the_model_takes_are_refused(most, shown, plan):
    call = CallDescription(kind="image", parameters={"prompt": None, "image": None}, max_images=most)
    urls = [f"https://x/{index}.png" for index in range(most + 1)]

    with pytest.raises(RequestError) as refused:
        plan({"call": call}, image_path=urls)

    assert refused.value.problem == f"this model starts from {shown}, not {most + 1}"
    assert refused.value.remedy == f"give {shown}"
    assert len(plan(image_path=urls[:most]).requests[0].image_path) == most


def seeds(plan):
    return [(request.prompt, request.seed) for request in plan.requests]


def test_seeds_count_up_or_are_taken_from_the_list(plan):
    assert seeds(plan(prompt=["a", "b"], num_outputs=2, seed=5)) == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]
    assert seeds(plan(prompt=["a", "b"], seed=[7, 9])) == [("a", 7), ("b", 9)]
    assert seeds(plan(prompt=["a"], num_outputs=2, seed=[7, 1])) == [("a", 7), ("a", 1)]


def test_prompts_of_a_file_are_its_lines(plan, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\n  two  \n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n")

    assert [prompt for prompt, _ in seeds(plan(prompt=[], prompt_path=str(tmp_path / "prompts.txt")))] == ["one", "two"]
    with pytest.raises(ConfigError, match="the file holds no prompt"):
        plan(prompt=[], prompt_path=str(tmp_path / "empty.txt"))
    with pytest.raises(ConfigError, match="there is no such file"):
        plan(prompt=[], prompt_path=str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="both --prompt and --prompt-path"):
        plan(prompt_path=str(tmp_path / "prompts.txt"))


def request_of(plan):
    return plan.requests[0], plan.request_reasons


@pytest.fixture
def wide(manager, tmp_path):
    """A model that recommends 32 x 16."""
    files = tiny_pipeline_files(width=32, height=16, num_inference_steps=2, guidance_scale=3.5, fps=9)

    class Brings:
        @hookimpl
        def sglang_register_model_resolvers(self):
            return [MemoryResolver({"wide": files}, tmp_path / "memory")]

    manager.register(Brings(), "memory")
    return "memory/wide"


def test_each_value_has_its_reason(plan, wide):
    request, reasons = request_of(plan(model_path=wide, width=64, diffusers_kwargs={"guidance_scale": 2}))

    assert (request.width, reasons["width"]) == (64, "argument 'width'")
    assert (request.height, reasons["height"]) == (32, "from width, in the shape of the model's 32x16")
    assert (request.num_inference_steps, reasons["num_inference_steps"]) == (2, "recommended for memory/wide")
    assert (request.guidance_scale, reasons["guidance_scale"]) == (2.0, "argument 'diffusers_kwargs': guidance_scale")
    assert request.fps is None
    assert request.extra == {}


def test_guidance_of_a_model_that_spells_it_otherwise_is_one_value(plan):
    call = CallDescription(
        kind="image",
        parameters={"prompt": None, "true_cfg_scale": 4.0, "guidance_scale": None},
        spellings={"guidance_scale": "true_cfg_scale"},
    )

    request, reasons = request_of(plan({"call": call}, diffusers_kwargs={"true_cfg_scale": 3}))

    assert (request.guidance_scale, request.true_cfg_scale) == (3.0, None)
    assert reasons["guidance_scale"] == "argument 'diffusers_kwargs': true_cfg_scale"
    with pytest.raises(ConfigError, match="mean the same for this model"):
        plan(true_cfg_scale=1, guidance_scale=2)


def test_further_arguments_are_passed_on(plan):
    call = CallDescription(kind="image", parameters={"prompt": None, "max_sequence_length": 256})

    assert request_of(plan({"call": call}, diffusers_kwargs={"max_sequence_length": 5}))[0].extra == {
        "max_sequence_length": 5
    }


def test_precision_comes_from_the_most_particular_setting(plan):
    names = ("precision", "dit_precision", "component_precisions", "text_encoder_precisions")

    planned = plan(
        {"honours": names},
        precision="bf16",
        dit_precision="fp16",
        component_precisions={"vae": "fp32"},
        text_encoder_precisions=["fp16"],
        device="cpu",
    ).components

    precisions = {name: component.precision.value for name, component in planned.items()}
    assert precisions == {
        "scheduler": None,
        "text_encoder": "fp16",
        "tokenizer": None,
        "transformer": "fp16",
        "vae": "fp32",
    }
    assert planned["transformer"].precision.reason == "argument 'dit_precision'"
    assert planned["transformer"].num_bytes == (8 * 16 + 16) * 2
    assert planned["vae"].num_bytes == 9 * 4


def test_offload_on_the_host_itself_is_a_warning(plan):
    planned = plan({"honours": ["vae_cpu_offload", "image_encoder_cpu_offload"]}, vae_cpu_offload=True, device="cpu")
    other = plan(image_encoder_cpu_offload=True, device="cpu")

    assert planned.components["vae"].residency.value == "resident"
    assert any("--vae-cpu-offload has no effect" in warning for warning in planned.warnings)
    assert any("this model has no image_encoder with weights" in warning for warning in other.warnings)


def test_backend_is_chosen_with_its_reason(plan, manager):
    manager.register(
        no_op_plugin(name="better", order=-2, availability=Availability.no("no driver", "install it")), "better"
    )

    automatic = plan().backend
    explicit = plan(backend="no_op").backend

    assert (automatic.value, automatic.is_automatic) == ("no_op", True)
    assert automatic.reason == "it runs NoOpPipeline; not better: no driver"
    assert (explicit.is_automatic, explicit.reason) == (False, "argument 'backend'")


def test_no_backend_tells_each_reason_and_remedy(tiny_model):
    from sglang_core.testing import bare_manager

    manager = bare_manager(host_options=True)
    manager.register(no_op_plugin(availability=Availability.no("no driver", "install it")), "no_op")
    model = describe_model(MemorySource("m", tiny_pipeline_files(), tiny_model))
    from sglang_core.planning import create_plan

    with pytest.raises(UnavailableError, match="no execution backend can run NoOpPipeline: no_op: no driver") as none:
        create_plan(manager, make_settings(manager, prompt="a"), model)

    assert none.value.remedy == "install it"


class Transform:
    def __init__(self, name, order, reason, availability=None):
        self.name, self.order, self.reason = name, order, reason
        self.availability = availability or Availability.yes()

    def probe(self):
        return self.availability

    def wanted(self, plan):
        return self.reason


class BringsTransforms:
    def __init__(self, *transforms):
        self.transforms = transforms

    @hookimpl
    def sglang_register_pipeline_transforms(self):
        return list(self.transforms)


def test_wanted_transforms_are_planned_in_order(plan, manager):
    transforms = Transform("late", 9, "b"), Transform("never", 5, None), Transform("early", 1, "a")
    manager.register(BringsTransforms(*transforms), "transforms")

    assert [(choice.value, choice.reason) for choice in plan().transforms] == [("early", "a"), ("late", "b")]


def test_wanted_transform_that_cannot_work_is_refused(plan, manager):
    manager.register(BringsTransforms(Transform("x", 1, "--x", Availability.no("no gcc", "install gcc"))), "transforms")

    with pytest.raises(UnavailableError, match=r"x \(--x\): no gcc") as refused:
        plan()

    assert refused.value.remedy == "install gcc"


def test_plan_is_json_and_text(plan):
    planned = plan({"kind": "video"}, prompt=["a", "b"], diffusers_kwargs={})

    text = "\n".join(plan_lines(planned))
    values = json.loads(json.dumps(planned.to_json(), allow_nan=False))

    assert values["backend"] == {"value": "no_op", "reason": "it runs NoOpPipeline", "automatic": True}
    assert [request["num_frames"] for request in values["requests"]] == [5, 5]
    assert values["memory"]["weights_bytes"] > 0
    assert "request (the first of 2)" in text
    assert "backend     no_op  (automatic: it runs NoOpPipeline)" in text


def test_unknown_model_names_what_resolvers_take(tmp_path):
    from sglang_core.planning import resolve_model
    from sglang_core.testing import bare_manager

    class Brings:
        @hookimpl
        def sglang_register_model_resolvers(self):
            return [MemoryResolver({"wide": {}}, tmp_path)]

    manager = bare_manager(host_options=True)
    manager.register(Brings(), "memory")

    with pytest.raises(ModelNotFoundError, match="argument 'model_path': no model 'nothing' is found") as unknown:
        resolve_model(manager, make_settings(manager, model_path="nothing"))

    assert unknown.value.remedy == "one of memory/wide"
    assert ModelReference(path="x", token="secret").__repr__().count("secret") == 0
