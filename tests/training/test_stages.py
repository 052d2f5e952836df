from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from shapes_training.evaluation import evaluate, generate
from shapes_training.export import Defaults, export
from shapes_training.network import NetworkConfig, Velocity, create_text_encoder, create_transformer, encode_text
from shapes_training.progress import AveragedWeights, TrainingClock, learning_rate, load_checkpoint
from shapes_training.restore import restore
from shapes_training.single_frame import as_frames, decode_unclamped, encode_mean, use_single_frame_convolutions
from shapes_training.tokenizer import NUM_DROPPED_TOKENS, check_pipeline_template, create_tokenizer, tokenize
from shapes_training.train_transformer import TransformerConfig, train_transformer
from shapes_training.train_vae import VaeConfig, create_vae, train_vae

NETWORK = NetworkConfig(num_layers=1, num_heads=2, head_dim=24, axes_dims_rope=(8, 8, 8), text_dim=48)
VAE = VaeConfig(base_dim=4, minutes=5, batch_size=4, use_compile=False, max_steps=2)
TRANSFORMER = TransformerConfig(
    network=NETWORK,
    minutes=5,
    batch_size=4,
    num_processes=1,
    num_first_chunks=1,
    chunk_size=8,
    num_chunks=1,
    use_compile=False,
    max_steps=2,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training")
    train_vae(VAE, out)
    train_transformer(TRANSFORMER, VAE, out)
    export(VAE, TRANSFORMER, Defaults(num_inference_steps=2), out, out / "shapes-image", "- measured")
    return out / "shapes-image"


def test_two_steps_of_every_stage_make_a_model_that_diffusers_loads(exported: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(exported)

    check_pipeline_template(pipeline)
    assert {type(part).__name__ for part in pipeline.components.values()} == {
        "AutoencoderKLQwenImage",
        "FlowMatchEulerDiscreteScheduler",
        "Qwen2Tokenizer",
        "Qwen2_5_VLForConditionalGeneration",
        "QwenImageTransformer2DModel",
    }
    assert json.loads((exported / "sglang.json").read_text())["task"] == "text-to-image"
    assert "- measured" in (exported / "README.md").read_text()


def test_exported_model_draws_and_is_judged(exported: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"

    scores, failures = evaluate(exported, count=2, num_inference_steps=2, guidance_scale=3.0, sheet=sheet)

    assert scores.count == 2
    assert len(failures) == 2 - round(2 * scores.overall)
    assert sheet.exists()


def test_picture_does_not_depend_on_its_batch(exported: Path) -> None:
    captions = ["a red circle", "a large blue star at the top left on a yellow background"]

    together = generate(exported, captions, num_inference_steps=2, guidance_scale=1.0)
    alone = generate(exported, captions, num_inference_steps=2, guidance_scale=1.0, batch_size=1)

    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


def test_training_goes_on_from_its_checkpoint(exported: Path) -> None:
    train_transformer(TRANSFORMER, VAE, exported.parent)

    assert torch.load(exported.parent / "transformer.pt", weights_only=True)["step"] == 4


def test_one_frame_through_two_dimensional_convolutions_is_the_same() -> None:
    torch.manual_seed(0)
    vae = create_vae(VAE)
    frames = as_frames(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    with torch.no_grad():
        mean = vae.encode(frames).latent_dist.mean
        picture = vae.decode(mean).sample

        use_single_frame_convolutions(vae)

        torch.testing.assert_close(encode_mean(vae, frames), mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(decode_unclamped(vae, mean).clamp(-1, 1), picture, rtol=1e-3, atol=1e-4)


def test_trained_forward_pass_is_the_one_of_the_pipeline() -> None:
    torch.manual_seed(0)
    tokenizer = create_tokenizer(num_scenes=200)
    transformer = create_transformer(NETWORK, latent_channels=4)
    text_encoder = create_text_encoder(NETWORK, tokenizer)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids, mask = tokenize(tokenizer, ["a red circle", "a small blue star above a green box"], 24)
    latents, sigma = torch.randn(2, 16, 16), torch.tensor([0.2, 0.9])
    text_mask = mask[:, NUM_DROPPED_TOKENS:]
    with torch.no_grad():
        text = encode_text(text_encoder, ids, mask)
        whole = text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
        expected = transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=text_mask,
            timestep=sigma,
            img_shapes=[[(1, 4, 4)]] * 2,
        ).sample

        actual = Velocity(transformer, grid=4, num_text_tokens=24)(latents, sigma, text, text_mask)

    torch.testing.assert_close(text, whole[:, NUM_DROPPED_TOKENS:])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_caption_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 7"):
        tokenize(create_tokenizer(num_scenes=200), ["a red circle on a white background"], 7)


def test_clock_counts_a_pause_only_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = TrainingClock(minutes=1.0, longest_step_s=6.0)

    now[0] += 3.0
    assert clock.tick() == pytest.approx(3 / 60)
    now[0] += 1000.0
    assert clock.tick() == pytest.approx(9 / 60)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    assert learning_rate(0.0, 0, 1.0, 10) == pytest.approx(0.1)
    assert learning_rate(0.0, 50, 1.0, 10) == 1.0
    assert learning_rate(1.0, 500, 1.0, 10) == 0.0


def test_average_follows_the_weights() -> None:
    layer = torch.nn.Linear(2, 2)
    average = AveragedWeights(layer, decay=0.5)
    with torch.no_grad():
        layer.weight += 1.0
    for step in range(60):
        average.update(layer, step)
    other = torch.nn.Linear(2, 2)

    average.copy_to(other)

    torch.testing.assert_close(other.weight, layer.weight)


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
