"""Settings of the native engine."""

from attrs import frozen

from sglang_core import OptionGroup, option


@frozen(kw_only=True)
class CudaGraphOptions:
    """Recorded steps."""

    enable_cuda_graphs: bool = option(
        default=False,
        help="Record a denoising step as a CUDA graph and start the further ones as a whole, with --backend sglang: "
        "saves time where starting kernels takes longer than computing.",
    )


CUDA_GRAPHS_GROUP = OptionGroup(
    name="cuda_graphs",
    settings=CudaGraphOptions,
    commands=("generate", "explain", "serve"),
    is_execution=True,
)
