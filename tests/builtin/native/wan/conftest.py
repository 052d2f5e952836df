"""Attention for tiny models, tiny Wan folders with random weights, and how far two results are from each other."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from sglang_core import Availability, Generator, PluginManager, create_plugin_manager, hookimpl
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER
from sglang_plugins_builtin.native.wan.conditions import with_first_frame

#: Pieces of the tiny tokenizer; a letter that is none of them is unknown.
PIECES = ["▁a", "▁red", "▁circle", "▁the", "▁m", "oves", "▁", *"abcdefghijklmnoprstuvwö小猫.,"]
#: Latent channels of the tiny models.
CHANNELS = 4
#: A request that takes little, where a test does not say otherwise.
SHORT = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 4.0, "seed": 7}
PROMPT = "a red circle moves"


class PlainAttention:
    """The attention protocol in its plainest form, with the kernel of torch."""

    def attend(self, query, key, value, *, mask=None, scale=None, is_causal=False):
        assert mask is None or mask.dtype == query.dtype
        heads = (part.transpose(1, 2) for part in (query, key, value))
        return functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale).transpose(1, 2)

    def attend_with_lse(self, query, key, value, *, mask=None, scale=None, is_causal=False):
        assert mask is None
        scale = scale or 1 / math.sqrt(query.shape[-1])
        scores = torch.einsum("bqhd,bkhd->bqhk", query.float(), key.float()) * scale
        return self.attend(query, key, value, scale=scale), scores.logsumexp(-1)


@pytest.fixture
def attention() -> PlainAttention:
    return PlainAttention()


@pytest.fixture(scope="session")
def distance() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Relative L2 distance of a result to the expected one."""

    def measure(result: torch.Tensor, expected: torch.Tensor) -> float:
        return float((result.double() - expected.double()).norm() / expected.double().norm())

    return measure


@pytest.fixture(scope="session")
def wan_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by name, saved by diffusers on first use; tests copy what they change.

    ``t2v`` is laid out as Wan 2.1, ``euler`` the same with another scheduler, ``t2v-experts`` as Wan 2.2 A14B, ``i2v``
    as Wan 2.1 with an image encoder, ``i2v-experts`` as Wan 2.2 without one, ``ti2v`` and ``ti2v-image`` as the 5B.
    ``trained`` is the embedded model.
    """
    root = tmp_path_factory.mktemp("wan")

    def folder(name: str) -> Path:
        path = WEIGHTS_FOLDER / "shapes-video" if name == "trained" else root / name
        if not path.exists():
            torch.manual_seed(0)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                _make_pipeline(name, root).save_pretrained(path)
        return path

    return folder


def _make_pipeline(name, root):
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanPipeline,
    )

    takes_image = name.startswith("i2v") or name == "ti2v-image"
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    is_euler = name == "euler"
    components = {
        "tokenizer": _make_tokenizer(root / "tokenizer"),
        "text_encoder": _make_text_encoder(),
        "vae": _make_vae(is_residual=name.startswith("ti2v")),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0) if is_euler else UniPCMultistepScheduler(**flow),
        "transformer": _make_transformer(name),
        "expand_timesteps": name.startswith("ti2v"),
    }
    if name.endswith("experts"):
        components |= {"transformer_2": _make_transformer(name), "boundary_ratio": 0.9}
    if name == "i2v":
        components |= _make_image_encoder()
    return (WanImageToVideoPipeline if takes_image else WanPipeline)(**components)


def _make_tokenizer(folder):
    """Make a tokenizer of the kind T5 has: pieces with scores, words marked by a bar, an end of text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0 - 0.1 * index) for index, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    bar = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), bar])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **names}))
    return T5TokenizerFast.from_pretrained(folder)


def _make_text_encoder():
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 3 + len(PIECES)}
    return UMT5EncoderModel(UMT5Config(**sizes))


def _make_transformer(name):
    from diffusers import WanTransformer3DModel

    # to an image's latents comes the mask: a channel for each frame that a latent stands for
    settings = {"in_channels": 2 * CHANNELS + 4 if name.startswith("i2v") else CHANNELS, "out_channels": CHANNELS}
    if name == "i2v":
        settings |= {"image_dim": 20, "added_kv_proj_dim": 24}
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 32, "ffn_dim": 40}
    model = WanTransformer3DModel(**sizes, num_layers=2, **settings)
    for parameter_name, value in model.named_parameters():  # norms that are not 1 and biases that are not 0
        if value.dim() == 1:
            is_scale = "norm" in parameter_name and parameter_name.endswith("weight")
            value.copy_(float(is_scale) + 0.2 * torch.randn_like(value))
        elif parameter_name.endswith("scale_shift_table"):
            value.copy_(0.5 * torch.randn_like(value))
    return model


def _make_vae(*, is_residual):
    from diffusers import AutoencoderKLWan

    settings = {"base_dim": 8, "z_dim": CHANNELS, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    settings |= {"latents_mean": [0.3, -0.2, 0.1, -0.5], "latents_std": [1.5, 0.8, 2.0, 1.1]}
    if is_residual:
        settings |= {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
        settings |= {"decoder_base_dim": 8, "scale_factor_spatial": 16, "scale_factor_temporal": 4}
    return AutoencoderKLWan(**settings)


def _make_image_encoder():
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    return {
        "image_encoder": CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=8, patch_size=4)),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
    }


@pytest.fixture(autouse=True)
def _foreign_warnings() -> Iterator[None]:
    """Torch, transformers and diffusers warn about themselves; what they warn of is not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Probe:
    """A plugin that holds the loaded pipeline and keeps the state that the last stage is given."""

    name = "probe"
    order = 1000

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.state: Any = None

    @hookimpl
    def sglang_register_pipeline_transforms(self) -> list[Any]:
        return [self]

    def probe(self) -> Availability:
        return Availability.yes()

    def wanted(self, plan: Any) -> str | None:
        return "the test looks at latents" if plan.backend.value == "sglang" else None

    def apply(self, pipeline: Any, plan: Any) -> None:
        self.pipeline = pipeline
        pipeline.stages.insert(-1, self.Keep(self))

    class Keep:
        name = "keep"

        def __init__(self, probe: "Probe") -> None:
            self._probe = probe

        def num_steps(self, state: Any) -> None:
            return

        def run(self, state: Any, control: Any) -> None:
            self._probe.state = state


class Native:
    """One loaded model of the native backend."""

    def __init__(self, folder: Path, precision: str, settings: dict[str, Any], plugins: Sequence[Any] = ()) -> None:
        manager: PluginManager = create_plugin_manager()
        self.probe = Probe()
        for plugin in (self.probe, *plugins):
            manager.register(plugin, type(plugin).__name__)
        asked = {"backend": "sglang", "precision": precision, "save_output": False, "return_frames": True}
        self.generator = Generator.from_pretrained(str(folder), manager=manager, **{**asked, **settings})

    def frames(self, prompt: str = PROMPT, **request: Any) -> np.ndarray:
        (output,) = self.generator.generate(prompt, **{**SHORT, **request}).outputs
        assert output.media is not None
        return output.media.frames

    def latents(self, prompt: str = PROMPT, **request: Any) -> torch.Tensor:
        self.frames(prompt, **request)
        return self.final_latents()

    def final_latents(self) -> torch.Tensor:
        """Return what the last run decoded: latents of a given first frame are put in as late as that."""
        state = self.probe.state
        if "first_frame" in state.conditions:
            return with_first_frame(state.latents, state.conditions["first_frame"])
        return state.latents


@pytest.fixture(scope="session")
def native(wan_folders: Callable[[str], Path]) -> Callable[..., Native]:
    """Return the native model of a folder's name; those with the same settings share one."""
    loaded: dict[str, Native] = {}

    def load(
        name: str, precision: str = "fp32", *, is_shared: bool = True, plugins: Sequence[Any] = (), **settings: Any
    ) -> Native:
        if not is_shared or plugins:
            return Native(wan_folders(name), precision, settings, plugins)
        key = repr((name, precision, settings))
        if key not in loaded:
            loaded[key] = Native(wan_folders(name), precision, settings)
        return loaded[key]

    return load


@pytest.fixture(scope="session")
def vanilla(wan_folders: Callable[[str], Path]) -> Callable[..., Any]:
    """Run the pipeline of diffusers as its documentation says: ``vanilla(name, prompt, output_type=...)``."""
    loaded: dict[Any, Any] = {}

    def run(name: str, prompt: str = PROMPT, dtype: torch.dtype = torch.float32, **request: Any) -> Any:
        from diffusers import DiffusionPipeline
        from diffusers.pipelines.wan import pipeline_wan_i2v
        from PIL import Image

        if not hasattr(pipeline_wan_i2v, "ftfy"):  # it is called also where it is not installed; ASCII it leaves alone
            pipeline_wan_i2v.ftfy = SimpleNamespace(fix_text=str)
        if (name, dtype) not in loaded:
            loaded[name, dtype] = DiffusionPipeline.from_pretrained(wan_folders(name), torch_dtype=dtype)
            loaded[name, dtype].set_progress_bar_config(disable=True)
        pipeline = loaded[name, dtype]
        is_tiled = request.pop("vae_tiling", False)
        pipeline.vae.enable_tiling() if is_tiled else pipeline.vae.disable_tiling()
        arguments = {"output_type": "latent", **SHORT, **request}
        if "image_path" in arguments:
            arguments["image"] = Image.open(arguments.pop("image_path")).convert("RGB")
        generator = torch.Generator().manual_seed(arguments.pop("seed"))
        return pipeline(prompt=prompt, generator=generator, **arguments).frames

    return run


@pytest.fixture
def images_of(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return what a request to a model needs beside a prompt: a picture in another size than the clip's, or nothing."""
    from PIL import Image

    def images(name: str, seed: int = 1) -> dict[str, str]:
        if not name.startswith("i2v") and name != "ti2v-image":
            return {}
        path = tmp_path / f"picture-{seed}.png"
        values = np.random.default_rng(seed).integers(0, 255, (9, 13, 3), dtype=np.uint8)
        Image.fromarray(values).resize((52, 36)).save(path)
        return {"image_path": str(path)}

    return images
