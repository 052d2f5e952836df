from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch.nn.functional import pad

from clips_training.evaluation import evaluate, generate
from clips_training.export import Defaults, export
from clips_training.network import (
    NUM_PIPELINE_TOKENS,
    NetworkConfig,
    Velocity,
    create_text_encoder,
    create_transformer,
    encode_text,
)
from clips_training.restore import restore
from clips_training.tokenizer import create_tokenizer, tokenize
from clips_training.train_text import TextConfig, train_text
from clips_training.train_transformer import TransformerConfig, train_transformer
from clips_training.train_vae import VaeConfig, create_vae, draw_crops, train_vae
from clips_training.whole_clip import as_clips, decode_unclamped, encode_mean, use_whole_clips
from shapes_training.parallel import Gradients
from shapes_training.progress import load_checkpoint

NETWORK = NetworkConfig(
    num_layers=1, num_heads=2, head_dim=24, ffn_dim=32, text_dim=32, num_text_layers=1, num_text_heads=2
)
VAE = VaeConfig(base_dim=4, z_dim=4, minutes=5, batch_size=2, num_processes=1, use_compile=False, max_steps=2)
TRANSFORMER = TransformerConfig(
    network=NETWORK, minutes=5, batch_size=4, num_processes=1, max_clips=6, use_compile=False, max_steps=2
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clips-training")
    train_vae(VAE, out)
    train_text(TextConfig(batch_size=8, max_steps=2), NETWORK, out)
    train_transformer(TRANSFORMER, VAE, out)
    export(VAE, TRANSFORMER, Defaults(num_inference_steps=2), out, out / "shapes-video", "- measured")
    return out / "shapes-video"


def test_two_steps_of_every_stage_make_a_model_that_diffusers_loads(exported: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(exported)

    assert {type(part).__name__ for part in pipeline.components.values() if part is not None} == {
        "AutoencoderKLWan",
        "T5Tokenizer",
        "UMT5EncoderModel",
        "UniPCMultistepScheduler",
        "WanTransformer3DModel",
    }
    assert pipeline.text_encoder.dtype == pipeline.transformer.dtype == torch.float32
    notes = json.loads((exported / "sglang.json").read_text())
    assert (notes["task"], notes["num_frames"], notes["fps"]) == ("text-to-video", 17, 8)
    assert "- measured" in (exported / "README.md").read_text()


def test_exported_model_draws_and_is_judged(exported: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"

    scores, failures = evaluate(exported, count=2, num_inference_steps=2, guidance_scale=3.0, sheet=sheet)

    assert scores.count == 2
    assert len(failures) == 2 - round(2 * scores.overall)
    assert "2 clips" in scores.as_markdown("2 steps")
    assert sheet.exists()


def test_clip_does_not_depend_on_its_batch(exported: Path) -> None:
    captions = ["a red circle", "a small blue triangle moves from left to right on a yellow background"]

    together = generate(exported, captions, num_inference_steps=2, guidance_scale=1.0)
    alone = generate(exported, captions, num_inference_steps=2, guidance_scale=1.0, batch_size=1)

    for one, other in zip(together, alone, strict=True):
        assert one.shape == (17, 64, 64, 3)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


def test_training_goes_on_from_its_checkpoint(exported: Path) -> None:
    train_vae(VAE, exported.parent)
    train_transformer(TRANSFORMER, VAE, exported.parent)

    assert torch.load(exported.parent / "vae.pt", weights_only=True)["step"] == 4
    assert torch.load(exported.parent / "transformer.pt", weights_only=True)["step"] == 4


def test_training_goes_on_from_an_exported_model(exported: Path, tmp_path: Path) -> None:
    restore(TRANSFORMER, VAE, exported, tmp_path)
    train_transformer(TRANSFORMER, VAE, tmp_path)
    state = load_checkpoint(tmp_path / "transformer.pt")
    pipeline = DiffusionPipeline.from_pretrained(exported)

    assert state is not None
    assert state["step"] == TRANSFORMER.max_steps
    name, before = next(iter(pipeline.transformer.named_parameters()))
    torch.testing.assert_close(state["average"][f"transformer.{name}"], before.detach(), atol=0.01, rtol=0)
    with pytest.raises(FileExistsError, match="--out"):
        restore(TRANSFORMER, VAE, exported, tmp_path)


@pytest.mark.parametrize("num_frames", [1, 5, 17])
def test_whole_clip_in_one_pass_is_the_same_as_in_pieces(num_frames: int) -> None:
    torch.manual_seed(0)
    vae = create_vae(VAE)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.15)  # earlier frames have zero weights before training
    clips = as_clips(torch.randint(0, 256, (2, num_frames, 16, 16, 3), dtype=torch.uint8))
    with torch.no_grad():
        mean = vae.encode(clips).latent_dist.mean
        frames = vae.decode(mean).sample

        use_whole_clips(vae)

        torch.testing.assert_close(encode_mean(vae, clips), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decode_unclamped(vae, mean).clamp(-1, 1), frames, rtol=1e-4, atol=1e-5)


def test_trained_forward_pass_is_the_one_of_the_pipeline() -> None:
    torch.manual_seed(0)
    tokenizer = create_tokenizer(num_clips=200)
    transformer = create_transformer(NETWORK, latent_channels=4)
    text_encoder = create_text_encoder(NETWORK, tokenizer)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids, mask = tokenize(tokenizer, ["", "a small blue square moves from left to right"], 16)
    latents, sigma = torch.randn(2, 4, 3, 8, 12), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        text = encode_text(text_encoder, ids, mask)
        expected = transformer(
            hidden_states=latents,
            timestep=1000 * sigma,
            encoder_hidden_states=pad(text, (0, 0, 0, NUM_PIPELINE_TOKENS - 16)),
        ).sample

        actual = Velocity(transformer, grid=(3, 8, 12), use_compile=False)(latents, sigma, text, mask)

    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    convolution = torch.nn.Conv3d(4, 4, 3)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last_3d)
    Gradients(list(convolution.parameters()), num_numbers=1)

    assert convolution.weight.grad is not None
    assert convolution.weight.grad.stride() == convolution.weight.stride()


def test_tokenizer_knows_words_with_capitals_and_makes_others_one_unknown_token(exported: Path) -> None:
    tokenizer = DiffusionPipeline.from_pretrained(exported, transformer=None, vae=None, text_encoder=None).tokenizer

    words = tokenizer.convert_ids_to_tokens(tokenizer("A marvellous red circle moves downwards, on blue.")["input_ids"])

    pieces = "▁A <unk> ▁red ▁circle ▁moves ▁downwards , ▁on ▁blue . </s>"
    assert words == pieces.split()


def test_caption_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 6"):
        tokenize(create_tokenizer(num_clips=200), ["a red circle on a white background"], 7)


def test_crops_show_the_shape_at_some_time() -> None:
    crops = draw_crops(np.random.default_rng(0), 20, size=32, num_frames=9)

    assert crops.shape == (20, 9, 32, 32, 3)
    assert all(len(np.unique(crop.reshape(-1, 3), axis=0)) > 2 for crop in crops)
