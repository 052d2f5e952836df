"""What the backend says while a run is planned, from metadata and source alone."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_core import (
    ComponentDescription,
    ConfigError,
    ExecutionPlan,
    FolderSource,
    ModelDescription,
    RequestError,
    UnavailableError,
    describe_model,
)
from sglang_plugins_builtin.diffusers_backend.attention import attention_names, probe_attention
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend
from sglang_plugins_builtin.diffusers_backend.calls import OWN_ARGUMENTS
from sglang_plugins_builtin.diffusers_backend.pipeline_code import installed_pipeline, parse_pipeline

Folders = Callable[[str], Path]
Planner = Callable[..., ExecutionPlan]


def model_of(pipeline_class: str, **values: Any) -> ModelDescription:
    values.setdefault("components", {})
    return ModelDescription(
        reference="some/model", resolver="directory", revision=None, pipeline_class=pipeline_class, **values
    )


@pytest.mark.parametrize(
    ("pipeline_class", "kind", "required"),
    [
        ("QwenImagePipeline", "image", ()),
        ("FluxPipeline", "image", ()),
        ("StableDiffusionImg2ImgPipeline", "image", ("image",)),
        ("WanPipeline", "video", ()),
        ("WanImageToVideoPipeline", "video", ("image",)),
        ("LTX2Pipeline", "video", ()),
    ],
)
def test_call_of_an_installed_pipeline_is_read_from_its_source(
    pipeline_class: str, kind: str, required: tuple[str, ...]
) -> None:
    call = DiffusersBackend().describe_call(model_of(pipeline_class))

    assert (call.kind, tuple(call.required)) == (kind, required)
    assert "prompt" in call.parameters
    assert OWN_ARGUMENTS.isdisjoint(call.parameters)


@pytest.mark.parametrize(
    "pipeline_class", ["QwenImagePipeline", "WanPipeline", "StableDiffusionPipeline", "LTX2Pipeline"]
)
def test_parameters_read_from_source_are_those_of_the_class(pipeline_class: str) -> None:
    import inspect

    import diffusers

    code = installed_pipeline(pipeline_class)
    signature = inspect.signature(getattr(diffusers, pipeline_class).__call__).parameters

    assert code is not None
    names = [name for name in signature if name not in {"self", "kwargs"}]
    assert list(code.parameters)[: len(names)] == names
    assert not code.takes_any


def test_guidance_means_the_one_that_acts(models: Folders, make_plan: Planner) -> None:
    plan = make_plan(models("qwen"), width=32, height=32, guidance_scale=2.5)

    assert plan.call.spellings == {"guidance_scale": "true_cfg_scale"}
    assert (plan.requests[0].guidance_scale, plan.requests[0].negative_prompt) == (2.5, " ")


def test_distilled_guidance_keeps_its_name() -> None:
    call = DiffusersBackend().describe_call(model_of("FluxPipeline"))

    assert call.spellings == {}
    assert (call.parameters["guidance_scale"], call.parameters["true_cfg_scale"]) == (3.5, 1.0)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("qwen", {"width": 40, "height": 32}, "multiples of 16"),
        ("wan", {"num_frames": 6}, r"4 x n \+ 1 frames"),
        ("stable", {"num_frames": 5}, "does not make a clip"),
        ("stable", {"diffusers_kwargs": {"gidance_rescale": 1}}, "gidance_rescale is no argument of StableDiff"),
        ("stable", {"diffusers_kwargs": {"output_type": "pil"}}, "output_type is no argument"),
        ("custom", {"guidance_scale": 3.0, "trust_remote_code": True}, "GreyPipeline takes no guidance_scale"),
        ("wan", {"image_path": ("data:,x",)}, "this model takes no image"),
        ("wan", {"image_path": ("data:,x",), "mask_path": "data:,x"}, "this model has no inpainting pipeline"),
        ("qwen", {"mask_path": "data:,x"}, "--mask-path is given without an image"),
    ],
)
def test_what_the_call_does_not_take_is_refused_by_name(
    name: str, arguments: dict[str, Any], problem: str, models: Folders, make_plan: Planner
) -> None:
    with pytest.raises(RequestError, match=problem):
        make_plan(models(name), **arguments)


def test_code_of_a_repo_needs_trust(models: Folders, make_plan: Planner) -> None:
    plan = make_plan(models("custom"))

    answer = DiffusersBackend().supports(plan.model, plan.settings)

    assert not answer.is_available
    assert "brings its own pipeline code (GreyPipeline)" in answer.reason
    assert "--trust-remote-code" in answer.remedy
    trusted = plan.settings.replace(trust_remote_code=True)
    assert DiffusersBackend().supports(plan.model, trusted).is_available


@pytest.mark.parametrize(
    ("model", "reason", "remedy"),
    [
        (model_of("NoSuchPipeline"), "no pipeline class 'NoSuchPipeline'", "pip install --upgrade diffusers"),
        (model_of("AudioLDM2Pipeline"), "neither pictures nor clips", "text-to-image"),
        (
            model_of("Own", index={"_class_name": ["own", "Own"]}, pipeline_code="class Other: ..."),
            "has no class Own",
            "_class_name",
        ),
    ],
)
def test_a_class_that_cannot_run_is_refused_with_a_remedy(
    model: ModelDescription, reason: str, remedy: str, models: Folders, make_plan: Planner
) -> None:
    settings = make_plan(models("qwen"), trust_remote_code=True).settings

    answer = DiffusersBackend().supports(model, settings)

    assert reason in answer.reason
    assert remedy in answer.remedy


@pytest.mark.parametrize("class_name", ["Qwen2VLProcessor", "Qwen2_5_VLProcessor"])
def test_a_processor_of_clips_without_torchvision_is_refused_with_a_remedy(
    class_name: str, models: Folders, make_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_plan(models("qwen")).settings
    processor = ComponentDescription(name="processor", library="transformers", class_name=class_name, config={})
    model = model_of("QwenImageEditPipeline", components={"processor": processor})

    hide_torchvision(monkeypatch)
    answer = DiffusersBackend().supports(model, settings)

    assert answer.reason == (
        f"processor of some/model ({class_name} of transformers) needs torchvision, which is not installed"
    )
    assert answer.remedy == (
        "pip install torchvision, or use --backend sglang, which does without where it runs the model"
    )


@pytest.mark.parametrize("class_name", ["CLIPImageProcessor", "CLIPProcessor"])
def test_a_processor_of_images_needs_no_torchvision(
    class_name: str, models: Folders, make_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_plan(models("qwen")).settings
    processor = ComponentDescription(name="processor", library="transformers", class_name=class_name, config={})

    hide_torchvision(monkeypatch)
    answer = DiffusersBackend().supports(model_of("WanPipeline", components={"processor": processor}), settings)

    assert answer.is_available


def test_a_processor_of_clips_is_taken_where_torchvision_is(
    models: Folders, make_plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_plan(models("qwen")).settings
    processor = ComponentDescription(name="processor", library="transformers", class_name="Qwen2VLProcessor", config={})
    found = importlib.machinery.ModuleSpec("torchvision", None)
    find = importlib.util.find_spec

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "torchvision" else find(name))
    model = model_of("QwenImageEditPipeline", components={"processor": processor})

    assert DiffusersBackend().supports(model, settings).is_available


def hide_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision be missing, also where it is installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchvision" else find(name))


def test_a_call_is_inherited_from_a_class_of_diffusers() -> None:
    text = "from diffusers import QwenImagePipeline\n\nclass Mine(QwenImagePipeline):\n    pass\n"

    code = parse_pipeline(text, "Mine")

    assert code is not None
    assert "true_cfg_scale" in code.parameters


def test_further_arguments_are_taken_only_where_they_are_used() -> None:
    call = "class Mine:\n    def __call__(self, prompt, **kwargs):\n        {}\n"

    unused = parse_pipeline(call.format("return Output(images=kwargs.pop('old', 1))"), "Mine")
    forwarded = parse_pipeline(call.format("return self.inner(prompt, **kwargs)"), "Mine")

    assert unused is not None
    assert forwarded is not None
    assert (unused.takes_any, list(unused.parameters)) == (False, ["prompt", "old"])
    assert forwarded.takes_any


@pytest.mark.parametrize("text", ["class Mine(:", "x = 1", "class Mine(Mine): pass"])
def test_source_that_tells_nothing_is_none(text: str) -> None:
    assert parse_pipeline(text, "Mine") is None


def test_names_of_attention_backends_are_those_of_diffusers() -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert attention_names() == tuple(member.value for member in AttentionBackendName)


@pytest.mark.parametrize(
    ("name", "remedy"), [("fa", "'flash'"), ("flsh", "'flash'"), ("torch_sdpa", "'native'"), ("???", "use one of")]
)
def test_an_unknown_attention_backend_is_refused_with_the_nearest(name: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="diffusers has no") as caught:
        probe_attention(name, trust_remote_code=False)

    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "is_trusted", "remedy"),
    [
        ("xformers", False, "pip install"),
        ("sage", False, "sageattention"),
        ("_flash_3_hub", False, "--trust-remote-code"),
    ],
)
def test_an_attention_backend_that_is_not_here_has_a_remedy(name: str, is_trusted: bool, remedy: str) -> None:
    answer = probe_attention(name, is_trusted)

    assert not answer.is_available
    assert remedy in answer.remedy


def test_an_attention_backend_for_accelerators_is_refused_on_the_cpu(models: Folders, make_plan: Planner) -> None:
    with pytest.raises(UnavailableError, match="xformers: it does not run on cpu"):
        make_plan(models("qwen"), diffusers_attention_backend="xformers")


def test_planning_imports_nothing_heavy(models: Folders) -> None:
    source = FolderSource("wan", "directory", models("wan"))
    assert describe_model(source).pipeline_class == "WanPipeline"
    probe = (
        "import sys; from pathlib import Path; from sglang_core import FolderSource, describe_model, Settings\n"
        "from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend\n"
        "import sglang_plugins_builtin.diffusers_backend, sglang_plugins_builtin.torch_compile\n"
        "model = describe_model(FolderSource('m', 'd', Path(sys.argv[1])))\n"
        "backend = DiffusersBackend(); settings = Settings(values={})\n"
        "assert backend.probe().is_available and backend.supports(model, settings).is_available\n"
        "assert backend.describe_call(model).kind == 'video'\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(models("wan"))], capture_output=True, text=True, check=True)

    heavy = {"torch", "diffusers", "transformers", "accelerate", "numpy", "PIL", "huggingface_hub", "ssl"}
    assert heavy.isdisjoint(done.stdout.split())
