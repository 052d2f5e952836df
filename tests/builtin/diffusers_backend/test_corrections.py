"""Editing images with the pipelines of diffusers gives what the native engine gives, in any precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_qwen_images import Native, Processor, image_processor, parts, write

from sglang_core import Availability, PluginManager, StepControl, plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.diffusers_backend import processors
from sglang_plugins_builtin.diffusers_backend.corrections import encode_in_own_precision, tell_image_tokens
from sglang_plugins_builtin.native.qwen_image import edit_stages

PIPELINES = ["QwenImageEditPipeline", "QwenImageEditPlusPipeline"]
#: In place of a million, in both implementations.
AREA, SEEN_AREA = 96 * 96, 64 * 64


@pytest.fixture(autouse=True)
def _small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus

    small = {1024 * 1024: AREA, 384 * 384: SEEN_AREA}
    for module in (edit, edit_plus):
        choose = module.calculate_dimensions
        monkeypatch.setattr(
            module, "calculate_dimensions", lambda area, ratio, choose=choose: choose(small[area], ratio)
        )
    monkeypatch.setattr(edit_stages, "AREA", AREA)
    monkeypatch.setattr(edit_stages, "SEEN_AREA", SEEN_AREA)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    values = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


class ProcessorOfTransformers(Processor, transformers.ProcessorMixin):
    """Of the class that diffusers asks for."""


@pytest.fixture
def edit_with_diffusers(manager: PluginManager, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a request on the diffusers backend; the processor of transformers needs torchvision even without clips."""

    def run(folder: Path, **values: Any) -> np.ndarray:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
        processor = ProcessorOfTransformers(image_processor(), tokenizer)
        monkeypatch.setattr(transformers.Qwen2VLProcessor, "from_pretrained", lambda *_, **__: processor)
        monkeypatch.setattr(processors, "probe_processors", lambda _: Availability.yes())  # this one does without
        settings = make_settings(manager, model_path=str(folder), backend="diffusers", **values)
        plan = plan_run(manager, settings).plan
        pipeline = manager.execution_backends.get("diffusers").load(plan, folder, StepControl())
        try:
            return pipeline.run(plan.requests[0], StepControl()).frames
        finally:
            pipeline.close()

    return run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("class_name", PIPELINES)
def test_edited_picture_is_that_of_the_native_engine(
    tmp_path, picture, edit_with_diffusers, class_name, precision
) -> None:
    folder = write(tmp_path / "model", class_name, {**parts(), "processor": image_processor()})
    request = {"prompt": "red", "image_path": (picture,), "width": 64, "height": 32, "num_inference_steps": 2}
    precisions = {"precision": precision, "vae_precision": "fp32", "seed": 3}

    theirs = edit_with_diffusers(folder, **request, **precisions)
    ours = Native(folder, image_path=(picture,), **precisions).frames(**request)

    assert theirs.shape == (1, 32, 64, 3)
    off = np.abs(theirs[0].astype(int) - ours)
    assert off.max() <= 1 if precision == "fp32" else off.mean() <= 2


@pytest.fixture(scope="module")
def encoder() -> Any:
    return parts()["text_encoder"]


@pytest.fixture
def told(encoder: Any) -> Any:
    """Call the text encoder with the tokens of one image in it, and return what its model was given as kinds."""
    told: list[Any] = []
    hook = encoder.model.register_forward_pre_hook(
        lambda module, arguments, named: told.append(named.get("mm_token_type_ids")), with_kwargs=True
    )
    image = encoder.config.image_token_id

    def call(**arguments: Any) -> Any:
        patches = torch.zeros(16, 3 * 2 * 14 * 14)
        with torch.no_grad():
            encoder(
                input_ids=torch.tensor([[1, *[image] * 4, 2]]),
                pixel_values=patches,
                image_grid_thw=torch.tensor([[1, 4, 4]]),
                **arguments,
            )
        return told.pop()

    yield call
    hook.remove()


def test_tokens_of_images_are_told_unless_the_caller_does(encoder, told) -> None:
    assert told() is None
    tell_image_tokens(encoder)

    assert told().tolist() == [[0, 1, 1, 1, 1, 0]]
    own = torch.tensor([[0, 1, 1, 1, 1, 0]])
    assert told(mm_token_type_ids=own) is own
    assert told(position_ids=torch.arange(6).expand(3, 1, 6)) is None


def test_vae_takes_pixels_in_another_precision_and_answers_in_it() -> None:
    vae = parts()["vae"]
    pixels = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        expected = vae.encode(pixels.bfloat16().float()).latent_dist.mode()
        with pytest.raises(RuntimeError):
            vae.encode(pixels.bfloat16())

        encode_in_own_precision(vae)
        same = vae.encode(pixels.bfloat16().float()).latent_dist.mode()
        half, (tuple_half,) = (
            vae.encode(pixels.bfloat16()).latent_dist,
            vae.encode(pixels.bfloat16(), return_dict=False),
        )

    assert torch.equal(same, expected)
    for found in (half, tuple_half):
        assert found.mode().dtype == torch.bfloat16
        torch.testing.assert_close(found.mode(), expected.bfloat16())
