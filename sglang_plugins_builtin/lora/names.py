"""How training programs call the layers of a denoiser, and which layer of the model that is."""

import re
from collections.abc import Iterable, Mapping

#: The names of Wan's own code for those of diffusers, as (name there, name here).
_WAN_NAMES: tuple[tuple[str, str], ...] = (
    (r"(blocks\.\d+)\.attn1\.to_([qkv])", r"\1.self_attn.\2"),
    (r"(blocks\.\d+)\.attn1\.to_out\.0", r"\1.self_attn.o"),
    (r"(blocks\.\d+)\.attn2\.to_([qkv])", r"\1.cross_attn.\2"),
    (r"(blocks\.\d+)\.attn2\.to_out\.0", r"\1.cross_attn.o"),
    (r"(blocks\.\d+)\.attn2\.add_([kv])_proj", r"\1.cross_attn.\2_img"),
    (r"(blocks\.\d+)\.ffn\.net\.0\.proj", r"\1.ffn.0"),
    (r"(blocks\.\d+)\.ffn\.net\.2", r"\1.ffn.2"),
    (r"condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"condition_embedder\.time_proj", "time_projection.1"),
    (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"condition_embedder\.image_embedder\.ff\.net\.0\.proj", "img_emb.proj.1"),
    (r"condition_embedder\.image_embedder\.ff\.net\.2", "img_emb.proj.3"),
    (r"proj_out", "head.head"),
)
_ANY_MODEL = re.compile(r"(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|module\.)+")
_COMPONENT = re.compile(r"(transformer|transformer_2|unet)\.")
#: Programs that have no dots in names begin them so.
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lora_", "lycoris_")
TEXT_ENCODER = re.compile(r"(?:base_model\.model\.)?(text_encoder|text_model|lora_te|te\d?_|conditioner)")


def spellings_of(layers: Iterable[str], class_name: str) -> dict[str, str]:
    """Return the layers of a component by every name that adapters have for them.

    A name that stands for two of them is left out.
    """
    found: dict[str, str] = {}
    ambiguous = set()
    for layer in layers:
        names = {layer, *(_wan_name(layer) if class_name.startswith("Wan") else ())}
        for name in names | {name.replace(".", "_") for name in names}:
            if found.setdefault(name, layer) != layer:
                ambiguous.add(name)
    return {name: layer for name, layer in found.items() if name not in ambiguous}


def _wan_name(layer: str) -> tuple[str, ...]:
    for pattern, original in _WAN_NAMES:
        match = re.fullmatch(pattern, layer)
        if match is not None:
            return (match.expand(original),)
    return ()


def split_component(name: str) -> tuple[str | None, str]:
    """Return the component that the name of a layer begins with, if it does, and the rest."""
    name = _ANY_MODEL.sub("", name, count=1) if _ANY_MODEL.match(name) else name
    match = _COMPONENT.match(name)
    return (match[1], name[match.end() :]) if match else (None, name)


def find_layer(name: str, spellings: Mapping[str, str]) -> str | None:
    """Return the layer that a name without its component stands for."""
    if name in spellings:
        return spellings[name]
    for prefix in _FLAT_PREFIXES:
        if name.startswith(prefix) and name.removeprefix(prefix) in spellings:
            return spellings[name.removeprefix(prefix)]
    return None
