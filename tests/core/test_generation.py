"""From settings to files, with a backend whose steps cost nothing."""

import logging
from pathlib import Path

import pytest

from sglang_core import (
    ConfigError,
    Generator,
    ModelLoadError,
    OutputError,
    OutputSaved,
    RequestCancelledError,
    RequestError,
    RunEnded,
    RunPlanned,
    RunStarted,
    StageEnded,
    StepDone,
    create_control,
    generate_outputs,
    hookimpl,
    read_receipt,
    settings_from_receipt,
)
from sglang_core.testing import make_settings, no_op_plugin


@pytest.fixture
def generate(manager, tiny_model, tmp_path):
    """Generate with a no-op backend of these settings; return result and events."""

    def run(backend=None, listeners=(), plugins=(), **settings):
        manager.register(no_op_plugin(order=-1, **(backend or {})), "no_op")
        for index, plugin in enumerate(plugins):
            manager.register(plugin, f"plugin{index}")
        values = {"model_path": str(tiny_model), "output_path": str(tmp_path / "out"), "prompt": "a", **settings}
        merged = make_settings(manager, **values)
        run.events = []
        run.control = create_control(manager, merged, [run.events.append, *listeners])
        return generate_outputs(manager, merged, run.control)

    return run


def outcomes(events):
    return [event.outcome for event in events if isinstance(event, RunEnded)]


def written(tmp_path):
    folder = tmp_path / "out"
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_outputs_are_saved_and_announced(generate, tmp_path):
    result = generate(prompt=["a", "b"], num_outputs=2, seed=7, output_file_name="x.png")

    assert written(tmp_path) == ["x_0.png", "x_1.png", "x_2.png", "x_3.png"]
    assert [(output.prompt, output.seed) for output in result.outputs] == [("a", 7), ("a", 8), ("b", 7), ("b", 8)]
    assert isinstance(generate.events[0], RunStarted)
    assert generate.events[0].num_outputs == 4
    assert [event.index for event in generate.events if isinstance(event, OutputSaved)] == [0, 1, 2, 3]
    assert outcomes(generate.events) == ["completed"]
    assert set(result.timings_s) == {"plan", "fetch", "load", "encode", "denoise", "decode", "save"}


def test_plan_is_announced_before_anything_is_loaded(generate, tiny_model):
    generate(save_output=False)

    (index,) = [number for number, event in enumerate(generate.events) if isinstance(event, RunPlanned)]
    before = [event.stage for event in generate.events[:index] if isinstance(event, StageEnded)]
    assert generate.events[index].plan.model.reference == str(tiny_model)
    assert before == ["plan"]


def test_nothing_is_saved_where_that_is_asked(generate, tmp_path):
    result = generate(save_output=False, return_frames=True)

    assert result.paths == ()
    assert result.outputs[0].media.frames.shape == (1, 16, 16, 3)
    assert not (tmp_path / "out").exists()


FAILURES = {
    "load": ({"fails_at": "load"}, ModelLoadError, "loading {model} failed: RuntimeError: no_op was told to fail"),
    "encode": ({"fails_at": "encode"}, RequestError, "backend no_op failed: RuntimeError: no_op was told to fail"),
    "denoise": ({"fails_at": "denoise"}, RequestError, "backend no_op failed: RuntimeError"),
    "decode": ({"fails_at": "decode", "error": MemoryError()}, RequestError, "backend no_op failed: MemoryError"),
    "own error": (
        {"fails_at": "decode", "error": OutputError("mine", "help yourself")},
        OutputError,
        "mine",
    ),
    "no frames": (
        {"frames_dtype": "float32"},
        RequestError,
        "returned frames of shape (1, 16, 16, 3) and type float32",
    ),
}


@pytest.mark.parametrize(("backend", "kind", "problem"), FAILURES.values(), ids=FAILURES)
def test_failing_backend_ends_in_one_sentence_without_a_file(backend, kind, problem, generate, tmp_path, tiny_model):
    with pytest.raises(kind) as failed:
        generate(backend)

    assert problem.format(model=tiny_model) in failed.value.problem
    assert failed.value.remedy
    assert written(tmp_path) == []
    assert outcomes(generate.events) == ["failed"]


class BadEncoder:
    name = "bad"
    extensions = ("bad",)
    kinds = ("image",)
    order = 1000

    def probe(self):
        from sglang_core import Availability

        return Availability.yes()

    def encode(self, media, path, options, receipt):
        path.write_bytes(b"half")
        raise KeyError("lost")


class BringsEncoder:
    @hookimpl
    def sglang_register_media_encoders(self):
        return [BadEncoder()]


def test_failing_encoder_leaves_no_file(generate, tmp_path):
    with pytest.raises(OutputError, match="bad failed: KeyError: 'lost'"):
        generate(plugins=[BringsEncoder()], output_file_name="x.bad")

    assert written(tmp_path) == []


class Transform:
    name = "faster"
    order = 1

    def __init__(self, error=None):
        self.error = error
        self.applied = 0

    def probe(self):
        from sglang_core import Availability

        return Availability.yes()

    def wanted(self, plan):
        return "the test wants it"

    def apply(self, pipeline, plan):
        self.applied += 1
        if self.error:
            raise self.error


class BringsTransform:
    def __init__(self, *transforms):
        self.transforms = transforms

    @hookimpl
    def sglang_register_pipeline_transforms(self):
        return list(self.transforms)


def test_failing_transform_is_named(generate):
    with pytest.raises(ModelLoadError, match="faster failed: ValueError: ouch") as failed:
        generate(plugins=[BringsTransform(Transform(ValueError("ouch")))])

    assert "leave faster out (the test wants it)" in failed.value.remedy


def test_transform_is_applied_once_for_all_outputs(generate):
    transform = Transform()

    generate(plugins=[BringsTransform(transform)], num_outputs=3)

    assert transform.applied == 1


def test_cancelled_run_keeps_whole_files_and_makes_no_other(generate, tmp_path):
    def cancel_in_second(event):
        if isinstance(event, OutputSaved):
            generate.control.cancel()

    with pytest.raises(RequestCancelledError):
        generate(listeners=[cancel_in_second], num_outputs=3, output_file_name="x.png")

    assert written(tmp_path) == ["x_0.png"]
    assert outcomes(generate.events) == ["cancelled"]


def test_interrupt_in_a_step_is_a_cancelled_run(generate, tmp_path):
    def interrupt(index):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate({"on_step": interrupt})

    assert outcomes(generate.events) == ["cancelled"]
    assert written(tmp_path) == []


def test_warnings_of_the_plan_are_logged(generate, caplog):
    with caplog.at_level(logging.WARNING):
        generate({"honours": ["image_encoder_precision"]}, image_encoder_precision="bf16")

    assert "this model has no image_encoder with weights" in caplog.text


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_receipt_repeats_the_output(generate, manager, tmp_path, extension):
    settings = {"width": 24, "guidance_scale": 0.0, "negative_prompt": "", "num_inference_steps": 3}
    settings["output_compression"] = 30
    first = generate(
        prompt="a 円 \\n", seed=5, num_outputs=2, output_file_name=f"x.{extension}", return_frames=True, **settings
    )
    receipt = read_receipt(first.paths[1], manager.media_encoders)

    again = settings_from_receipt(make_settings(manager), receipt, first.paths[1])
    again = again.replace(output_path=str(tmp_path / "again"), output_file_name=f"y.{extension}", return_frames=True)
    second = generate_outputs(manager, again, create_control(manager, again))

    assert second.paths[0].read_bytes() == first.paths[1].read_bytes()
    assert (second.outputs[0].media.frames == first.outputs[1].media.frames).all()


def test_what_is_given_wins_over_the_receipt(generate, manager):
    receipt = read_receipt(generate(seed=5, width=24).paths[0], manager.media_encoders)

    settings = settings_from_receipt(make_settings(manager, width=32), receipt, Path("x.png"))

    values = {field.name: value for _, field, value in settings.fields()}
    assert (values["width"], values["seed"], values["prompt"]) == (32, (5,), ("a",))


def test_receipt_cannot_set_what_is_no_part_of_an_output(generate, manager):
    result = generate()
    receipt = dict(read_receipt(result.paths[0], manager.media_encoders))
    receipt["request"] = {**receipt["request"], "trust_remote_code": True, "output_path": "/elsewhere"}
    receipt["plan"] = {**receipt["plan"], "settings": {"trust_remote_code": True, "output_path": "/elsewhere"}}

    settings = settings_from_receipt(make_settings(manager), receipt, result.paths[0])

    assert not settings.is_given("trust_remote_code")
    assert not settings.is_given("output_path")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"request": {"prompt": "a", "seed": "x"}}, "(seed): expected a whole number, not 'x'"),
        ({"request": {"prompt": "a", "width": -5}}, "(width): 'width' must be >= 1: -5"),
        ({"plan": {"device": "toaster"}}, "(device): expected one of auto"),
    ],
)
def test_receipt_changed_by_hand_is_refused(change, problem, manager):
    receipt = {"format": 1, "request": {"prompt": "a"}, "model": None, "plan": {}, **change}

    with pytest.raises(ConfigError) as refused:
        settings_from_receipt(make_settings(manager), receipt, Path("x.png"))

    assert f"--from-file x.png {problem}" in refused.value.problem
    assert "changed by hand" in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none.png", "there is no such file"),
        ("notes.txt", "txt is not a known format"),
        ("plain.png", "carries no receipt"),
    ],
)
def test_file_without_receipt_is_refused(name, problem, tmp_path, manager):
    from PIL import Image

    (tmp_path / "notes.txt").write_text("x")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")

    with pytest.raises(ConfigError, match=problem):
        read_receipt(tmp_path / name, manager.media_encoders)


@pytest.fixture
def loaded(no_op_manager, tiny_model):
    with Generator.from_pretrained(str(tiny_model), manager=no_op_manager, save_output=False) as generator:
        yield generator


def test_generator_makes_many_with_one_model(loaded):
    first = loaded.generate("a", return_frames=True).outputs[0].media.frames
    again = loaded.generate("a", return_frames=True).outputs[0].media.frames
    other = loaded.generate(["b", "c"], seed=[1, 2], num_outputs=2, width=24)

    assert (first == again).all()
    assert [(output.prompt, output.seed, output.width) for output in other.outputs] == [
        ("b", 1, 24),
        ("b", 2, 24),
        ("c", 1, 24),
        ("c", 2, 24),
    ]


def test_generator_says_what_is_not_as_asked_for(loaded, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        loaded.generate("a", save_output=True, output_path=str(tmp_path), output_file_name="a b.png")

    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "--output-file-name 'a b.png' is saved as 'a_b.png'"
    ]
    assert (tmp_path / "a_b.png").is_file()


def test_generator_warns_once_of_what_the_model_does_not_take(manager, tiny_model, caplog):
    manager.register(no_op_plugin(order=-1, honours=["image_encoder_precision"]), "no_op")
    with caplog.at_level(logging.WARNING):
        settings = {"image_encoder_precision": "bf16", "save_output": False}
        with Generator.from_pretrained(str(tiny_model), manager=manager, **settings) as generator:
            generator.generate("a")

    assert caplog.text.count("this model has no image_encoder with weights") == 1


ARGUMENTS = [
    ({"seed": -1}, ConfigError, "argument 'seed'", "give seed"),
    ({"width": "wide"}, ConfigError, "argument 'width': expected a whole number, not 'wide'", "give width"),
    ({"widht": 5}, ConfigError, "unknown argument 'widht'", "use 'width'"),
    ({"precision": "fp32"}, RequestError, "argument 'precision': the model is loaded with it", "from_pretrained"),
    ({"width": 15}, RequestError, "not width 15", "use --width 16"),
]


@pytest.mark.parametrize(("arguments", "kind", "problem", "remedy"), ARGUMENTS)
def test_wrong_argument_is_named(arguments, kind, problem, remedy, loaded):
    with pytest.raises(kind) as refused:
        loaded.generate("a", **arguments)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_generator_stays_usable_after_an_interrupted_request(no_op_manager, tiny_model):
    with Generator.from_pretrained(str(tiny_model), manager=no_op_manager, save_output=False) as generator:
        before = generator.generate("a", return_frames=True)

        with pytest.raises(KeyboardInterrupt):
            generator.generate("a", listeners=(_interrupt_a_step,))
        after = generator.generate("a", return_frames=True)

    assert (before.outputs[0].media.frames == after.outputs[0].media.frames).all()


def _interrupt_a_step(event):
    if isinstance(event, StepDone):
        raise KeyboardInterrupt


def test_closed_generator_says_so(loaded):
    loaded.close()

    with pytest.raises(RequestError, match="the engine is closed"):
        loaded.generate("a")
