"""Tiny pipelines with random weights on disk, and plans for them."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sglang_core import (
    AttentionOptions,
    CallOptions,
    Choice,
    ExecutionOptions,
    ExecutionPlan,
    FolderSource,
    MemoryEstimate,
    ModelOptions,
    OffloadOptions,
    OptionGroup,
    SamplingOptions,
    Settings,
    describe_model,
)
from sglang_core.component_plans import plan_components
from sglang_core.request_planning import plan_requests
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend
from sglang_plugins_builtin.diffusers_backend.config import DIFFUSERS_GROUP
from sglang_plugins_builtin.torch_compile.config import TORCH_COMPILE_GROUP

GROUPS = (
    OptionGroup(name="model", settings=ModelOptions),
    OptionGroup(name="execution", settings=ExecutionOptions, is_execution=True),
    OptionGroup(name="attention", settings=AttentionOptions, is_execution=True),
    OptionGroup(name="offload", settings=OffloadOptions, is_execution=True),
    OptionGroup(name="sampling", settings=SamplingOptions),
    OptionGroup(name="call", settings=CallOptions, is_execution=True),
    DIFFUSERS_GROUP,
    TORCH_COMPILE_GROUP,
)

CUSTOM_PIPELINE = '''
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput


class GreyPipeline(DiffusionPipeline):
    """Makes grey pictures without a progress bar, an output_type or callbacks."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, prompt=None, num_inference_steps=4, generator=None, brightness=0.5):
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            states = torch.zeros(1, 2, 8)
            noise = self.unet(latents, t, encoder_hidden_states=states).sample
            latents = self.scheduler.step(noise, t, latents).prev_sample
        pictures = (latents[:, :3] * 0.1 + brightness).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(pictures))
'''


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Iterator[None]:
    """Torch, transformers and diffusers warn about themselves; what they warn of is not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by name, made on first use."""
    root = tmp_path_factory.mktemp("models")
    makers = {"qwen": make_qwen, "wan": make_wan, "stable": make_stable_diffusion, "custom": make_custom}

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            import torch

            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                makers[name](path)
        return path

    return folder


def make_qwen(path: Path) -> None:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vae = AutoencoderKLQwenImage(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = QwenImageTransformer2DModel(
        num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6)
    )
    text = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    QwenImagePipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae, encoder, make_tokenizer(), transformer
    ).save_pretrained(path)


def make_tokenizer() -> Any:
    """Return a byte-level tokenizer: one token for each byte."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocab = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    vocab["<|endoftext|>"] = len(vocab)
    return Qwen2Tokenizer(vocab=vocab, merges=[])


def make_wan(path: Path) -> None:
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=16, num_layers=2
    )
    config = UMT5Config(d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1, vocab_size=300)
    WanPipeline(
        make_tokenizer(), UMT5EncoderModel(config), vae, FlowMatchEulerDiscreteScheduler(shift=3.0), transformer
    ).save_pretrained(path)


def make_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
    )


def make_stable_diffusion(path: Path) -> None:
    from diffusers import AutoencoderKL, HeunDiscreteScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    vae = AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )
    config = CLIPTextConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=300, eos_token_id=256
    )
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 77
    StableDiffusionPipeline(
        vae, CLIPTextModel(config), tokenizer, make_unet(), HeunDiscreteScheduler(), None, None, None, False
    ).save_pretrained(path)


def make_custom(path: Path) -> None:
    import json

    from diffusers import DDIMScheduler

    make_unet().save_pretrained(path / "unet")
    DDIMScheduler().save_pretrained(path / "scheduler")
    (path / "grey_pipeline.py").write_text(CUSTOM_PIPELINE, encoding="utf-8")
    index = {
        "_class_name": ["grey_pipeline", "GreyPipeline"],
        "_diffusers_version": "0.36.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def settings_of(**values: Any) -> Settings:
    """Return settings as if given from Python, fp32 unless something else is said."""
    given = {"prompt": ("a red circle",), "precision": "fp32", **values}
    return Settings(values={}, groups=GROUPS).replace(**given)


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., ExecutionPlan]:
    """Return a function that plans a run of a folder: ``make_plan(folder, width=32, ...)``."""
    return plan_of


def plan_of(folder: Path, /, **values: Any) -> ExecutionPlan:
    backend = DiffusersBackend()
    settings = settings_of(**values)
    model = describe_model(FolderSource(folder.name, "directory", folder))
    attention = backend.choose_attention(model, settings, "cpu", {})
    call = backend.describe_call(model)
    requests, reasons = plan_requests(model, call, settings)
    return ExecutionPlan(
        model=model,
        kind=call.kind,
        backend=Choice(value="diffusers", reason="", is_automatic=True),
        device=Choice(value="cpu", reason="", is_automatic=True),
        attention=attention.default,
        component_attention=attention.by_role,
        components=plan_components(model, settings, "cpu"),
        transforms=(),
        call=call,
        requests=requests,
        request_reasons=reasons,
        output=None,  # type: ignore[arg-type]  # nothing here is saved
        memory=MemoryEstimate(weights_bytes=0, device_weights_bytes=0, activations_bytes=0, available_bytes=None),
        settings=settings,
    )
