"""Whole pipelines: the same clips as diffusers makes, from every layout of folder."""

import numpy as np
import pytest
import torch

#: Of float32 latents, relative L2: sums are in another order. Measured: 1.4e-6 at most.
FLOAT32 = 1e-5
#: In bfloat16 both are some 1e-2 from the float32 result; ours may be farther by this factor.
BFLOAT16 = 1.1

PROMPTS = {
    "one token": "a",
    "40 tokens": "a " + "the circle " * 18 + "moves",
    "unicode": "Schön, 小猫 &amp; 🐈\tmoves ",
}
REQUESTS = {
    "plain": {},
    "unguided": {"guidance_scale": 1.0},
    "negative": {"negative_prompt": "the cat, 小"},
    "one frame": {"num_frames": 1},
    "9 frames": {"num_frames": 9, "width": 48},
    "odd sizes": {"width": 80, "height": 48},
    "one step": {"num_inference_steps": 1},
    "many steps": {"num_inference_steps": 7, "num_frames": 1},
    "seed": {"seed": 2**40 + 1},
}


@pytest.mark.parametrize("name", ["t2v", "euler", "t2v-experts", "ti2v"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_latents_of_text_to_video_equal_those_of_diffusers(name, request_, native, vanilla, distance):
    if name == "ti2v":  # its latents are coarser by two
        request_ = {**request_, **{side: 2 * request_.get(side, 32) for side in ("width", "height")}}

    assert distance(native(name).latents(**request_), vanilla(name, **request_)) < FLOAT32


@pytest.mark.parametrize(
    "request_", [{}, {"guidance_scale": 1.0}, {"num_frames": 9}], ids=["guided", "unguided", "short"]
)
def test_trained_weights_give_the_latents_of_diffusers(request_, native, vanilla, distance):
    request = {"width": 64, "height": 64, "num_frames": 17, "num_inference_steps": 6, **request_}
    prompt = "a small blue square rises on a yellow background"

    assert distance(native("trained").latents(prompt, **request), vanilla("trained", prompt, **request)) < 1e-4


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_every_prompt_is_read_as_diffusers_reads_it(prompt, native, vanilla, distance):
    request = {"num_frames": 1, "num_inference_steps": 2}
    latents = native("t2v").latents(prompt, **request)

    assert distance(latents, vanilla("t2v", prompt, **request)) < FLOAT32
    assert distance(latents, native("t2v").latents("a red circle", **request)) > 100 * FLOAT32  # the prompt matters


@pytest.mark.parametrize("second_scale", [None, 1.0, 2.5, 0.0])
def test_the_second_expert_has_a_guidance_of_its_own(second_scale, native, vanilla, distance):
    request = {"num_inference_steps": 4, "guidance_scale_2": second_scale}

    assert distance(native("t2v-experts").latents(**request), vanilla("t2v-experts", **request)) < FLOAT32


@pytest.mark.parametrize("name", ["i2v", "i2v-experts", "ti2v-image"])
@pytest.mark.parametrize("case", ["plain", "unguided", "one frame", "9 frames", "odd sizes"])
def test_latents_of_image_to_video_equal_those_of_diffusers(name, case, native, vanilla, distance, images_of):
    request = {"width": 32, "height": 32, **REQUESTS[case], **images_of(name)}
    if name == "ti2v-image":
        request |= {"width": 2 * request["width"], "height": 2 * request["height"]}

    assert distance(native(name).latents(**request), vanilla(name, **request)) < FLOAT32


@pytest.mark.parametrize("name", ["t2v", "t2v-experts", "ti2v", "i2v", "i2v-experts", "ti2v-image", "trained"])
def test_in_bfloat16_latents_are_no_farther_from_float32_than_those_of_diffusers(name, native, vanilla, images_of):
    theirs, ours = 0.0, 0.0
    for seed in range(8):  # of one noise, and of one picture, the distances scatter by a fifth
        request = {"seed": seed, "width": 64, "height": 64, **images_of(name, seed)}
        exact = vanilla(name, **request).double()
        theirs += float((vanilla(name, dtype=torch.bfloat16, **request).double() - exact).square().sum())
        ours += float((native(name, "bf16").latents(**request).double() - exact).square().sum())

    assert ours**0.5 <= BFLOAT16 * theirs**0.5


@pytest.mark.parametrize("name", ["t2v", "i2v", "ti2v-image"])
def test_frames_equal_those_of_diffusers(name, native, vanilla, images_of):
    request = {"width": 64, "height": 32, **images_of(name)}
    (expected,) = vanilla(name, output_type="np", **request)

    frames = native(name).frames(**request)

    assert frames.shape == (5, 32, 64, 3)
    assert np.abs(frames - 255.0 * expected).max() < 0.51  # nothing but the rounding to 256 levels


@pytest.mark.parametrize("name", ["t2v", "i2v", "ti2v"])
def test_in_tiles_frames_equal_those_of_diffusers_in_tiles(name, native, vanilla, images_of):
    request = {"width": 288, "height": 32, **images_of(name), "num_inference_steps": 1}
    (expected,) = vanilla(name, output_type="np", vae_tiling=True, **request)

    tiled = native(name, vae_tiling=True).frames(**request)

    assert np.abs(tiled - 255.0 * expected).max() < 0.51
    assert np.abs(tiled.astype(int) - native(name).frames(**request)).max() > 1  # tiles leave their traces


@pytest.mark.parametrize("name", ["t2v", "i2v"])
@pytest.mark.parametrize("backend", ["torch_sdpa", "reference"])
def test_every_attention_backend_gives_the_same_latents(backend, name, native, distance, images_of):
    request = images_of(name)
    expected = native(name).latents(**request)

    chosen = native(name, attention_backend=backend)

    assert {choice.value for choice in chosen.generator.plan.component_attention.values()} == {backend}
    assert distance(chosen.latents(**request), expected) < FLOAT32


def test_a_run_repeats_to_the_byte(native):
    first, second = native("t2v").frames(), native("t2v").frames()

    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ["t2v-experts", "i2v-experts", "ti2v-image"])
def test_nothing_is_left_of_an_earlier_request(name, native, images_of):
    images = images_of(name)
    native(name).frames(
        "a circle", width=64, height=64, num_inference_steps=5, guidance_scale=1.0, num_frames=1, **images
    )

    again = native(name).latents(width=64, height=32, **images)

    fresh = native(name, is_shared=False).latents(width=64, height=32, **images)
    assert torch.equal(again, fresh)
