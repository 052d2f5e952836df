"""The model family ``mosaic``: tiny transformers that paint mosaics."""

from sglang_core import ModelFamily, hookimpl

from .family import MosaicFamily


@hookimpl
def sglang_register_model_families() -> list[ModelFamily]:
    return [MosaicFamily()]
