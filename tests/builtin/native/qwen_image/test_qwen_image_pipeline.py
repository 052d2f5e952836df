"""Whole text-to-image runs against the pipeline of diffusers: trained and random weights, odd shapes, every mode."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_qwen_images import EMBEDDED, Native, distance, parts, write

from sglang_core import (
    Generator,
    ModelLoadError,
    PluginManager,
    RequestCancelledError,
    RequestError,
    StageStarted,
    StepControl,
    StepDone,
    UnavailableError,
)
from sglang_core.planning import plan_run
from sglang_core.planning_report import plan_to_json
from sglang_core.testing import make_settings
from sglang_plugins_builtin.native.engine import Residency

pytestmark = pytest.mark.usefixtures("foreign_warnings")

SHORT, LONG = "red", "a red circle above a blue square and " * 7 + "a red circle on"  # 1 token, 60 tokens
SHAPES = {"square": (32, 32), "wide": (72, 24), "tall": (8, 56), "one token": (8, 8)}
STEPS = 3


@pytest.fixture(scope="module")
def vanilla() -> Callable[..., Any]:
    """Call the pipeline of diffusers: ``vanilla(folder, dtype, output_type, **arguments)``; each is loaded once."""
    from diffusers import QwenImagePipeline

    loaded: dict[Any, Any] = {}

    def call(
        folder: Path, dtype: torch.dtype, output_type: str, *, seed: int = 42, tiling: bool = False, **arguments: Any
    ) -> Any:
        if (folder, dtype) not in loaded:
            pipeline = QwenImagePipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
            pipeline.set_progress_bar_config(disable=True)
            loaded[folder, dtype] = pipeline
        vae = loaded[folder, dtype].vae
        vae.enable_tiling() if tiling else vae.disable_tiling()
        generator = torch.Generator().manual_seed(seed)
        made = loaded[folder, dtype](**arguments, generator=generator, output_type=output_type).images
        return made if output_type == "latent" else np.asarray(made[0])

    return call


def arguments_of(prompt: str, size: tuple[int, int], scale: float, steps: int = STEPS) -> tuple[dict[str, Any], ...]:
    """Return one request in the words of the host and in those of diffusers."""
    same = {"prompt": prompt, "width": size[0], "height": size[1], "num_inference_steps": steps}
    return {**same, "guidance_scale": scale}, {**same, "true_cfg_scale": scale, "negative_prompt": " "}


@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
def test_latents_equal_those_of_diffusers(tiny, native, vanilla, size, prompt, scale) -> None:
    ours, theirs = arguments_of(prompt, size, scale)

    found = native.latents(**ours)

    # both compute in float32; what is left is the order of sums
    assert distance(found, vanilla(tiny, torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 5.0], ids=["unguided", "guided"])
def test_trained_weights_give_the_latents_and_pixels_of_diffusers(vanilla, scale) -> None:
    ours, theirs = arguments_of("a red circle on a white background", (64, 48), scale)
    native = Native(EMBEDDED)

    frame, latents = native.frames(**ours), native.latents(**ours)

    assert distance(latents, vanilla(EMBEDDED, torch.float32, "latent", **theirs)) < 1e-4
    expected = vanilla(EMBEDDED, torch.float32, "pil", **theirs)
    assert np.abs(frame.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(
    "scheduler",
    [{"shift": 3.0}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}, {"use_dynamic_shifting": True}],
    ids=["shift", "linear", "exponential"],
)
def test_every_noise_schedule_leads_to_the_latents_of_diffusers(tmp_path, vanilla, scheduler) -> None:
    folder = write(tmp_path, "QwenImagePipeline", parts(scheduler=scheduler))
    ours, theirs = arguments_of(SHORT, (40, 24), 4.0)

    found = Native(folder).latents(**ours)

    assert distance(found, vanilla(folder, torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("weights", ["trained", "random"])
def test_in_bfloat16_it_is_as_near_to_float32_as_diffusers(tiny, vanilla, weights, scale) -> None:
    folder = EMBEDDED if weights == "trained" else tiny
    native = Native(folder, precision="bf16")
    ours_off, theirs_off = [], []
    for seed in range(4):  # one run alone is luck: rounding errors are random
        ours, theirs = arguments_of(LONG, (64, 48), scale)
        exact = vanilla(folder, torch.float32, "latent", seed=seed, **theirs)
        ours_off.append(distance(native.latents(seed=seed, **ours), exact))
        theirs_off.append(distance(vanilla(folder, torch.bfloat16, "latent", seed=seed, **theirs), exact))

    assert sum(ours_off) <= 1.1 * sum(theirs_off)


@pytest.mark.parametrize("size", [(32, 32), (72, 24)])
def test_pixels_differ_by_at_most_one_level(tiny, native, vanilla, size) -> None:
    ours, theirs = arguments_of(SHORT, size, 4.0)

    frame = native.frames(**ours)

    assert frame.shape == (size[1], size[0], 3)
    assert np.abs(frame.astype(int) - vanilla(tiny, torch.float32, "pil", **theirs).astype(int)).max() <= 1


def test_generator_gives_the_pixels_of_diffusers_and_the_same_bytes_again(tiny, vanilla, manager, tmp_path) -> None:
    ours, theirs = arguments_of(SHORT, (40, 24), 4.0)

    def make(generator: Generator, name: str, **changes: Any) -> bytes:
        result = generator.generate(**{**ours, **changes}, seed=7, output_path=str(tmp_path), output_file_name=name)
        return result.paths[0].read_bytes()

    settings = {"backend": "sglang", "precision": "fp32", "manager": manager}
    with Generator.from_pretrained(str(tiny), **settings) as generator:
        make(generator, "other.png", prompt=LONG, width=32, height=32)
        second = make(generator, "second.png")
        frame = generator.generate(**ours, seed=7, save_output=False, return_frames=True).outputs[0].media.frames[0]
    with Generator.from_pretrained(str(tiny), **settings) as generator:
        fresh, again = make(generator, "fresh.png"), make(generator, "again.png")

    expected = vanilla(tiny, torch.float32, "pil", seed=7, **theirs)
    assert np.abs(frame.astype(int) - expected.astype(int)).max() <= 1
    assert pixels_of(second) == pixels_of(fresh) == pixels_of(again)


def pixels_of(png: bytes) -> bytes:
    """Return the compressed pixels: the receipt beside them tells the name of the file."""
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png)).tobytes()


def test_run_imports_neither_diffusers_nor_transformers() -> None:
    make = (
        "import sys; from sglang_core import Generator; "
        "generator = Generator.from_pretrained('demo/shapes-image', backend='sglang'); "
        "generator.generate('a red circle', width=32, height=32, num_inference_steps=2, save_output=False); "
        "print(sorted({'diffusers', 'transformers', 'accelerate', 'torch._dynamo'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True, check=True, env=environment())

    assert done.stdout.strip().splitlines()[-1] == "[]"


def environment() -> dict[str, str]:
    """Return the environment with this process's ways to modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_attention_backends_agree(tiny, native) -> None:
    ours, _ = arguments_of(LONG, (40, 24), 4.0)

    reference = Native(tiny, attention_backend="reference")

    assert reference.plan.component_attention["transformer.self"].value == "reference"
    assert distance(reference.latents(**ours), native.latents(**ours)) < 1e-5


def test_tiles_give_the_pixels_that_diffusers_gives_with_tiles(tiny, native, vanilla) -> None:
    ours, theirs = arguments_of(SHORT, (320, 264), 1.0, steps=2)

    tiled = Native(tiny, vae_tiling=True).frames(**ours).astype(int)

    assert np.abs(tiled - vanilla(tiny, torch.float32, "pil", tiling=True, **theirs).astype(int)).max() <= 1
    assert np.abs(tiled - native.frames(**ours).astype(int)).max() > 1  # or nothing was cut into tiles


@pytest.mark.parametrize("mode", ["component-offload", "layerwise-offload"])
def test_offloaded_weights_give_the_same_bits_and_go_home(tiny, native, monkeypatch, mode) -> None:
    ours, _ = arguments_of(LONG, (40, 24), 4.0)
    expected = native.latents(**ours)
    place = Residency.place
    monkeypatch.setattr(
        Residency, "place", lambda self, name, module, _, *parts: place(self, name, module, mode, *parts)
    )
    moved = Native(tiny)
    weights = {name: moved.pipeline.components[name] for name in ("text_encoder", "transformer", "vae")}
    homes = {name: pointers(module) for name, module in weights.items()}

    found = [moved.latents(**ours) for _ in range(2)]

    assert all(torch.equal(each, expected) for each in found)
    assert {name: pointers(module) for name, module in weights.items()} == homes


def pointers(module: torch.nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in module.parameters()]


def test_modulation_weights_are_not_streamed_with_the_blocks(tiny) -> None:
    transformer = Native(tiny).pipeline.components["transformer"]
    residency = Residency(torch.device("cpu"))
    residency.place(
        "transformer", transformer, "layerwise-offload", transformer.streamed_layers(), transformer.used_once()
    )
    first = transformer.transformer_blocks[0]
    home = {name: parameter.data_ptr() for name, parameter in first.named_parameters()}
    away: set[str] = set()

    def look(block: torch.nn.Module, arguments: object) -> None:
        away.update(name for name, parameter in block.named_parameters() if parameter.data_ptr() != home[name])

    first.register_forward_pre_hook(look)
    text = transformer.prepare_text(torch.randn(1, 5, 32))
    transformer(
        torch.randn(1, 4, 16), text, transformer.rope([(1, 2, 2)], 5), transformer.modulations(torch.ones(1))[0]
    )

    assert away == {name for name in home if not name.startswith(("img_mod", "txt_mod"))}


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_cancelled_run_ends_in_its_stage_and_the_next_one_is_whole(native, stage) -> None:
    ours, _ = arguments_of(SHORT, (40, 24), 4.0)
    whole = native.frames(**ours)
    reached: list[str] = []

    def cancel_in_stage(event: object) -> None:
        if isinstance(event, StageStarted):
            reached.append(event.stage)
            if event.stage == stage:
                control.cancel()

    control = StepControl([cancel_in_stage])
    with pytest.raises(RequestCancelledError):
        native.frames(control, **{**ours, "prompt": f"never encoded before {stage}"})

    assert reached[-1] == stage
    assert (native.frames(**ours) == whole).all()


def test_run_that_is_cancelled_between_steps_makes_no_further_step(native) -> None:
    steps: list[tuple[str, int, int | None]] = []

    def cancel_after_two(event: object) -> None:
        if isinstance(event, StepDone):
            steps.append((event.stage, event.index, event.total))
            if event.index == 2:
                control.cancel()

    control = StepControl([cancel_after_two])
    with pytest.raises(RequestCancelledError):
        native.frames(control, **arguments_of(SHORT, (40, 24), 4.0, steps=5)[0])

    assert steps == [("denoise", 1, 5), ("denoise", 2, 5)]


def test_prompt_that_was_encoded_is_not_encoded_again(native) -> None:
    cache = native.pipeline.stages[0].cache
    cache.clear()

    first = native.latents(**arguments_of(SHORT, (32, 32), 4.0)[0])
    kept = len(cache)
    again = native.latents(**arguments_of(SHORT, (32, 32), 4.0)[0])

    assert (kept, len(cache)) == (2, 2)
    assert torch.equal(first, again)


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return apply


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda weights: weights.pop("img_in.bias"), "(QwenImageTransformer2DModel) has no weight 'img_in.bias'"),
        (lambda weights: weights.update(stray=torch.ones(1)), "has a weight 'stray' that its class does not have"),
        (
            lambda weights: weights.update({"img_in.bias": torch.ones(3)}),
            "weight 'img_in.bias' of transformer has the shape [3], not [48] as its configuration says",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_weights_that_do_not_fit_are_refused_by_name(tiny, tmp_path, change, problem) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    change_weights(change)(folder)

    with pytest.raises(ModelLoadError) as refused:
        Native(folder)

    assert problem in refused.value.problem
    assert refused.value.remedy


def test_latents_that_are_no_numbers_end_in_a_remedy(tiny, tmp_path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    change_weights(lambda weights: weights["proj_out.bias"].fill_(float("nan")))(folder)
    native = Native(folder)

    with pytest.raises(RequestError) as refused:
        native.frames(**arguments_of(SHORT, (32, 32), 1.0)[0])

    assert refused.value.problem == "the latents hold values that are no numbers after denoising in float32"
    assert "--dit-precision fp32" in refused.value.remedy


@pytest.fixture
def foreign_vae(tiny: Path, tmp_path: Path) -> Path:
    """A folder whose VAE is of a class that the family does not read."""
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["diffusers", "AutoencoderKL"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_component_of_another_class_goes_to_diffusers_and_the_plan_says_why(manager, foreign_vae) -> None:
    plan = plan_run(manager, make_settings(manager, model_path=str(foreign_vae), prompt="x")).plan

    assert plan.backend.value == "diffusers"
    assert "not sglang: its vae is a AutoencoderKL, the family qwen-image reads AutoencoderKLQwenImage" in (
        plan.backend.reason
    )


def test_component_of_another_class_is_refused_where_the_backend_is_asked_for(manager, foreign_vae) -> None:
    with pytest.raises(UnavailableError) as refused:
        plan_run(manager, make_settings(manager, model_path=str(foreign_vae), prompt="x", backend="sglang"))

    assert "its vae is a AutoencoderKL" in refused.value.problem
    assert refused.value.remedy == "use --backend diffusers"


@pytest.mark.parametrize("given", [{}, {"width": 64, "height": 96, "guidance_scale": 2.5}], ids=["defaults", "given"])
def test_both_backends_plan_the_same_request(manager: PluginManager, given: dict[str, Any]) -> None:
    plans = [
        plan_run(manager, make_settings(manager, model_path="demo/shapes-image", prompt="x", backend=name, **given))
        for name in ("sglang", "diffusers")
    ]

    native, vanilla = (plan_to_json(planned.plan)["requests"] for planned in plans)

    assert native == vanilla
