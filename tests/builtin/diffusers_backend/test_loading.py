"""Loading: each component in its precision, damaged folders in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_core import ExecutionPlan, ModelLoadError, StepControl, StepDone, UnavailableError
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend

Folders = Callable[[str], Path]
Planner = Callable[..., ExecutionPlan]


@pytest.fixture
def copy(models: Folders, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of a tiny model that a test may damage."""
    return lambda name: Path(shutil.copytree(models(name), tmp_path / name))


def load(plan: ExecutionPlan, folder: Path, listener: Any = None) -> Any:
    return DiffusersBackend().load(plan, folder, StepControl([listener] if listener else []))


def test_each_component_is_a_step_and_has_its_precision(models: Folders, make_plan: Planner) -> None:
    import torch

    plan = make_plan(models("stable"), precision=None, dit_precision="bf16", vae_precision="fp32")
    steps: list[Any] = []

    pipeline = load(plan, models("stable"), lambda event: steps.append(event) if isinstance(event, StepDone) else None)

    assert [(step.index, step.total, step.unit) for step in steps] == [(i, 5, "component") for i in range(1, 6)]
    assert pipeline.components["unet"].dtype == torch.bfloat16
    assert pipeline.components["vae"].dtype == torch.float32
    assert pipeline.components["safety_checker"] is None


def test_weights_of_a_variant_are_loaded_where_nothing_else_is(copy: Callable[[str], Path], make_plan: Planner) -> None:
    folder = copy("custom")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))

    pipeline = load(make_plan(folder, trust_remote_code=True), folder)

    assert sum(parameter.numel() for parameter in pipeline.components["unet"].parameters()) > 0


def change_config(folder: Path, component: str, **changes: Any) -> None:
    path = folder / component / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def remove_weight(folder: Path, component: str) -> None:
    from safetensors.torch import load_file, save_file

    (path,) = (folder / component).glob("*.safetensors")
    tensors = load_file(path)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda folder: remove_weight(folder, "unet"), "unet of stable .* 1 weights are missing", id="dit"),
        pytest.param(
            lambda folder: remove_weight(folder, "text_encoder"),
            "text_encoder of stable .* 1 weights are missing",
            id="text-encoder",
        ),
        pytest.param(lambda folder: change_config(folder, "vae", latent_channels=6), "vae of stable .*", id="shape"),
        pytest.param(
            lambda folder: change_config(folder, "text_encoder", hidden_size=16), "text_encoder .*", id="shape2"
        ),
        pytest.param(
            lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), "unet .* of stable .*", id="no-file"
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(
    damage: Callable[[Path], None], problem: str, copy: Callable[[str], Path], make_plan: Planner
) -> None:
    folder = copy("stable")
    damage(folder)

    with pytest.raises(ModelLoadError, match=problem) as caught:
        load(make_plan(folder), folder)

    assert "\n" not in caught.value.problem
    assert caught.value.remedy.startswith("download the model again")


def test_weights_truncated_after_planning_are_one_sentence(copy: Callable[[str], Path], make_plan: Planner) -> None:
    folder = copy("stable")
    plan = make_plan(folder)
    (path,) = (folder / "unet").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(ModelLoadError, match="unet of stable can not be loaded"):
        load(plan, folder)


def test_code_inside_pickled_weights_does_not_run(copy: Callable[[str], Path], make_plan: Planner) -> None:
    import pickle

    folder = copy("stable")
    witness = folder / "witness"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (witness,)

    (path,) = (folder / "unet").glob("*.safetensors")
    path.unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))

    with pytest.raises(ModelLoadError, match="unet of stable can not be loaded"):
        load(make_plan(folder), folder)

    assert not witness.exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_tiling_and_slicing_are_switched(wanted: bool, models: Folders, make_plan: Planner) -> None:
    plan = make_plan(models("stable"), vae_tiling=wanted, vae_slicing=wanted)

    vae = load(plan, models("stable")).components["vae"]

    assert (vae.use_tiling, vae.use_slicing) == (wanted, wanted)


def test_tiling_without_a_vae_is_refused(models: Folders, make_plan: Planner) -> None:
    plan = make_plan(models("custom"), trust_remote_code=True, vae_tiling=True)

    with pytest.raises(UnavailableError, match="does not apply to custom: it has no VAE"):
        load(plan, models("custom"))


def test_offload_on_the_cpu_changes_nothing(models: Folders, make_plan: Planner) -> None:
    plan = make_plan(models("stable"), component_residency={"all": "component-offload"})

    pipeline = load(plan, models("stable"))

    assert not hasattr(pipeline.components["unet"], "_hf_hook")


def test_modules_are_placed_each_in_its_mode(models: Folders, make_plan: Planner) -> None:
    """On the CPU the hooks move nothing, but they are there, and the picture is the same with them."""
    import torch

    from sglang_plugins_builtin.diffusers_backend.residency import offload

    plan = make_plan(models("stable"), width=16, height=16, num_inference_steps=2)
    pipeline = load(plan, models("stable"))
    plain = pipeline.run(plan.requests[0], StepControl())
    modes = {"text_encoder": "component-offload", "unet": "layerwise-offload", "vae": "resident"}

    offload(pipeline._pipeline, modes, torch.device("cpu"), pin=False)

    assert hasattr(pipeline.components["text_encoder"], "_hf_hook")
    assert not hasattr(pipeline.components["vae"], "_hf_hook")
    assert (pipeline.run(plan.requests[0], StepControl()).frames == plain.frames).all()
    assert (pipeline.run(plan.requests[0], StepControl()).frames == plain.frames).all()
