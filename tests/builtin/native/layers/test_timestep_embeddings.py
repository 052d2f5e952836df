"""Timesteps as vectors, against those of diffusers; and what importing the layers costs."""

import subprocess
import sys

import pytest
import torch

from sglang_plugins_builtin.native.layers import TimestepEmbedding, sinusoidal_embedding


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinusoids_equal_those_of_diffusers_to_the_bit(scale: float, dtype: torch.dtype) -> None:
    from diffusers.models.embeddings import Timesteps

    timesteps = torch.tensor([0.0, 0.02, 0.333, 0.9876, 1.0]).to(dtype)
    vanilla = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=scale)

    assert torch.equal(sinusoidal_embedding(timesteps, 256, scale=scale), vanilla(timesteps))


def test_timestep_perceptron_equals_that_of_diffusers_under_its_names() -> None:
    from diffusers.models.embeddings import TimestepEmbedding as Vanilla

    torch.manual_seed(0)
    vanilla, ours = Vanilla(16, 8), TimestepEmbedding(16, 8)
    ours.load_state_dict(vanilla.state_dict())
    x = torch.randn(3, 16)

    torch.testing.assert_close(ours(x), vanilla(x), rtol=1e-6, atol=1e-6)


def test_importing_the_transformer_modules_loads_neither_diffusers_nor_dynamo() -> None:
    code = (
        "import sys\n"
        "from sglang_plugins_builtin.native.qwen_image import prompts, text_encoder, tokenizer, transformer\n"
        "from sglang_plugins_builtin.native.schedules import flow_match_euler, unipc\n"
        "config = transformer.QwenImageTransformerConfig(num_layers=1, num_attention_heads=1)\n"
        "transformer.QwenImageTransformer(config, None)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {"diffusers", "transformers", "torch._dynamo", "scipy"}.isdisjoint(done.stdout.split())
