"""Attention for modules, and small models of diffusers and transformers with their weights in ours."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_qwen_images import Native, parts, write
from torch.nn import functional

import sglang_plugins_builtin.demo_models as demo_models


class PlainAttention:
    """Attention by torch, as the backends compute it."""

    def attend(self, query, key, value, *, mask=None, scale=None, is_causal=False):
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, is_causal=is_causal, enable_gqa=grouped
        )
        return attended.transpose(1, 2)


@pytest.fixture
def attention() -> PlainAttention:
    return PlainAttention()


@pytest.fixture
def embedded_model() -> Path:
    """The folder of the trained image model that is shipped."""
    return Path(demo_models.__file__).parent / "weights" / "shapes-image"


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def foreign_warnings() -> Iterator[None]:
    """Torch, transformers and diffusers warn about themselves; what they warn of is not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights and dynamic shifting of the noise levels."""
    return write(tmp_path_factory.mktemp("tiny"), "QwenImagePipeline", parts())


@pytest.fixture(scope="module")
def native(tiny: Path) -> Native:
    return Native(tiny)
