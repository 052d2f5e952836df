"""The embedded text-to-video model: it shows what the prompt says in motion, and repeats itself to the bit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clips_training.captions import held_out_captions
from clips_training.clips import Clip
from clips_training.judge import judge
from sglang_core import GeneratedMedia, Generator, create_plugin_manager
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER

pytestmark = pytest.mark.model

MODEL = WEIGHTS_FOLDER / "shapes-video"
PROMPT = "a red circle moves from left to right on a black background"
CLIP = Clip("red", "circle", "large", "left to right", "black")
MAX_WEIGHTS_BYTES = 24_000_000
#: Of the fixed 24 captions, entirely right; 22 were when it was trained. One may go wrong on a processor that rounds
#: differently.
MIN_RIGHT = 21


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    manager = create_plugin_manager(only_built_ins=True)
    with Generator.from_pretrained("demo/shapes-video", manager=manager, save_output=False) as loaded:
        yield loaded


def frames_of(generator: Generator, prompt: str = PROMPT, **settings: object) -> np.ndarray:
    (output,) = generator.generate(prompt, return_frames=True, **settings).outputs
    media = output.media
    assert isinstance(media, GeneratedMedia)
    return media.frames


def test_weights_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*.safetensors")) <= MAX_WEIGHTS_BYTES


def test_held_out_captions_are_shown_as_they_say(generator: Generator) -> None:
    verdicts = {
        caption: judge(frames_of(generator, caption, seed=seed), clip)
        for seed, (caption, clip) in enumerate(held_out_captions(24))
    }

    wrong = [caption for caption, verdict in verdicts.items() if not verdict.passed]
    assert len(verdicts) == 24
    assert len(wrong) <= 24 - MIN_RIGHT, wrong


def test_same_seed_same_clip_and_another_seed_another_one(generator: Generator) -> None:
    first, again, other = (frames_of(generator, seed=seed) for seed in (1, 1, 2))

    assert first.shape == (17, 64, 64, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_guidance_and_negative_prompt_matter(generator: Generator) -> None:
    plain, unguided = frames_of(generator, seed=3), frames_of(generator, seed=3, guidance_scale=1.0)
    away = frames_of(generator, seed=3, negative_prompt="a blue square falls on a white background")

    assert np.abs(plain.astype(int) - unguided).max() > 5
    assert np.abs(plain.astype(int) - away).max() > 5
    assert judge(away, CLIP).background


def test_the_pipeline_of_diffusers_shows_the_same(generator: Generator) -> None:
    manager = create_plugin_manager(only_built_ins=True)
    settings = {"backend": "diffusers", "precision": "fp32", "save_output": False}
    with Generator.from_pretrained("demo/shapes-video", manager=manager, **settings) as theirs:
        expected = frames_of(theirs, seed=7, num_inference_steps=6)
    settings["backend"] = "sglang"
    with Generator.from_pretrained("demo/shapes-video", manager=manager, **settings) as ours:
        found = frames_of(ours, seed=7, num_inference_steps=6)

    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1  # of 255: where the two round differently


def test_the_command_writes_an_mp4_that_shows_the_motion(tmp_path: Path) -> None:
    import av

    words = ["generate", "--model-path", "demo/shapes-video", "--prompt", PROMPT, "--num-frames", "17", "--json"]
    command = [sys.executable, "-m", "sglang_core", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["outputs"]
    assert output["path"].endswith(".mp4")
    with av.open(str(tmp_path / output["path"])) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.name) == (8, "h264")
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert len(frames) == 17
    assert judge(frames, CLIP).motion
