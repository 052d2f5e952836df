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


DIFFUSERS_GROUP = OptionGroup(
    name="diffusers",
    settings=DiffusersOptions,
    commands=("generate", "explain", "serve"),
    is_execution=True,
)
