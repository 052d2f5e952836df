"""What only the diffusers backend can be told."""

from attrs import frozen

from sglang_core import OptionGroup, option


@frozen(kw_only=True)
class DiffusersOptions:
    """Diffusers backend."""

    diffusers_attention_backend: str | None = option(
        default=None,
        help="Attention of diffusers pipelines: flash, _flash_3_hub, sage, xformers, native, or another it has.",
        metavar="NAME",
    )
    vae_tiling: bool | None = option(default=None, help="Decode in tiles, which needs less memory.")
    vae_slicing: bool | None = option(default=None, help="Decode one item of a batch at a time.")


DIFFUSERS_GROUP = OptionGroup(name="diffusers", settings=DiffusersOptions, is_execution=True)
