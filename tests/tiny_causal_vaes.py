"""Small autoencoders with random weights: diffusers' own, and ours on the same weights."""

from typing import Any, NamedTuple

import torch

from sglang_core import ComponentDescription
from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig
from sglang_plugins_builtin.native.causal_vae.model import CausalVae

SMALL: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [1.5, 0.5, 2.0, 1.0],
}
#: One of each architecture: name -> class and configuration.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen-image": ("AutoencoderKLQwenImage", {**SMALL, "num_res_blocks": 2}),
    "wan-2.1": ("AutoencoderKLWan", {**SMALL, "decoder_base_dim": 12}),
    "wan-2.2": (
        "AutoencoderKLWan",
        {
            **SMALL,
            "decoder_base_dim": 16,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "scale_factor_temporal": 4,
        },
    ),
}


class Pair(NamedTuple):
    """The same weights in both implementations."""

    vanilla: Any
    ours: CausalVae


def component_of(class_name: str, config: dict[str, Any]) -> ComponentDescription:
    return ComponentDescription(name="vae", library="diffusers", class_name=class_name, config=config)


def random_vanilla(name: str) -> Any:
    """Return diffusers' model with weights that keep activations near 1, so that errors are not scaled away."""
    import diffusers

    class_name, config = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = getattr(diffusers, class_name)(**config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("gamma"):
                parameter.normal_(1.0, 0.2)
            elif parameter.dim() > 1:
                parameter.normal_(0.0, (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.normal_(0.0, 0.1)
    return model.requires_grad_(requires_grad=False)


def with_weights_of(vanilla: Any, name: str, *, dtype: torch.dtype = torch.float32, **choices: Any) -> CausalVae:
    """Return our model on the weights of ``vanilla``, assigned by name, not yet prepared."""
    ours = CausalVae(CausalVaeConfig.from_component(component_of(*ARCHITECTURES[name])), **choices)
    stored = {stored: value for stored, value in vanilla.state_dict().items() if ours.rename(stored) is not None}
    ours.load_state_dict({name: value.to(dtype) for name, value in stored.items()}, assign=True)
    return ours
