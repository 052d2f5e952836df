"""The switch for torch.compile."""

from attrs import frozen

from sglang_core import OptionGroup, option


@frozen(kw_only=True)
class TorchCompileOptions:
    """Compilation."""

    enable_torch_compile: bool = option(
        default=False, help="Compile the denoiser: the first output takes minutes longer, later ones are faster."
    )


TORCH_COMPILE_GROUP = OptionGroup(
    name="torch_compile",
    settings=TorchCompileOptions,
    commands=("generate", "explain", "serve"),
    is_execution=True,
)
