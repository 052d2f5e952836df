"""The backends as the host sees them: names, what they can compute, whether they can work here. Nothing is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from sglang_core import AttentionCapabilities, Availability, UnavailableError

from .flash_versions import NO_GPU, VERSIONS, FlashAttention, gpu_capability

if TYPE_CHECKING:
    from sglang_core import Attention, AttentionBackend

_INSTALL_TORCH = 'pip install "sglang-plugins[diffusers]"'


@frozen(kw_only=True)
class Backend:
    """One way to compute attention: its declaration, and the two functions that look and make."""

    name: str
    look: Callable[[], Availability]
    make: Callable[[AttentionCapabilities], Attention]
    aliases: Collection[str] = ()
    order: int | None = None
    is_lossy: bool = False
    capabilities: AttentionCapabilities = field(factory=AttentionCapabilities)
    parameters: Mapping[str, type] = field(factory=dict)

    def probe(self) -> Availability:
        """Say whether its packages are installed."""
        return self.look()

    def create(self, parameters: Mapping[str, Any]) -> Attention:
        """Import what computes.

        :raises UnavailableError: if its packages do not import.
        """
        try:
            return self.make(self.capabilities)
        except (ImportError, OSError, RuntimeError) as error:  # compiled for another torch, a missing library
            reason = " ".join(str(error).split())
            raise UnavailableError(
                f"attention backend {self.name} does not import: {reason}",
                "install a build of it for this torch and GPU, or use --attention-backend torch_sdpa",
            ) from error


def _installed(module: str, remedy: str) -> Callable[[], Availability]:
    def look() -> Availability:
        if importlib.util.find_spec(module) is None:
            return Availability.no(f"{module} is not installed", remedy)
        return Availability.yes()

    return look


def _installed_for_cuda(module: str, remedy: str) -> Callable[[], Availability]:
    look = _installed(module, remedy)

    def look_for_both() -> Availability:
        answer = look()
        return answer if not answer.is_available or gpu_capability() is not None else NO_GPU

    return look_for_both


def _look_for_sage() -> Availability:
    answer = _installed_for_cuda("sageattention", 'pip install "sageattention>=2.1.1"')()
    capability = gpu_capability()
    if answer.is_available and capability is not None and (10, 0) <= capability < (12, 0):
        return Availability.no("sageattention has no kernel for data-centre Blackwell", "use sage_attn_3 or fa there")
    return answer


def _torch_sdpa(capabilities: AttentionCapabilities) -> Attention:
    from .torch_kernels import TorchSdpa  # torch: more than a second, so only when it computes

    return TorchSdpa()


def _cudnn(capabilities: AttentionCapabilities) -> Attention:
    from .torch_kernels import cudnn_attention  # torch, as above

    return cudnn_attention(capabilities)


def _reference(capabilities: AttentionCapabilities) -> Attention:
    from .reference import ReferenceAttention  # torch, as above

    return ReferenceAttention()


def _sage(capabilities: AttentionCapabilities) -> Attention:
    from .sage_kernels import sage_attention  # sageattention and Triton

    return sage_attention(capabilities)


def _sage_3(capabilities: AttentionCapabilities) -> Attention:
    from .sage_kernels import sage_attention_3  # sageattn3 and Triton

    return sage_attention_3(capabilities)


def _xformers(capabilities: AttentionCapabilities) -> Attention:
    from .xformers_kernels import xformers_attention  # xformers

    return xformers_attention(capabilities)


_HALF = ("bf16", "fp16")

BUILT_IN: tuple[AttentionBackend, ...] = (
    FlashAttention(name="fa", versions=VERSIONS, aliases=("flash", "flash_attn", "flash_hub"), order=50),
    *(FlashAttention(name=version.name, versions=(version,), aliases=version.aliases) for version in VERSIONS),
    Backend(
        name="torch_sdpa",
        aliases=("native", "sdpa"),
        order=100,
        look=_installed("torch", _INSTALL_TORCH),
        make=_torch_sdpa,
    ),
    Backend(
        name="torch_cudnn_sdpa",
        aliases=("cudnn_sdpa", "_native_cudnn"),
        look=_installed_for_cuda("torch", _INSTALL_TORCH),
        make=_cudnn,
        capabilities=AttentionCapabilities(
            devices=("cuda",), precisions=_HALF, max_head_dim=128, min_compute_capability=(8, 0)
        ),
    ),
    Backend(
        name="xformers",
        look=_installed_for_cuda("xformers", 'pip install "xformers>=0.0.29"'),
        make=_xformers,
        capabilities=AttentionCapabilities(
            devices=("cuda",), precisions=("bf16", "fp16", "fp32"), min_compute_capability=(7, 0)
        ),
    ),
    Backend(
        name="sage_attn",
        aliases=("sage",),
        is_lossy=True,
        look=_look_for_sage,
        make=_sage,
        capabilities=AttentionCapabilities(
            devices=("cuda",), precisions=_HALF, max_head_dim=128, min_compute_capability=(8, 0), has_masks=False
        ),
    ),
    Backend(
        name="sage_attn_3",
        aliases=("sage_blackwell_hub",),
        is_lossy=True,
        look=_installed_for_cuda("sageattn3", "build it from the folder sageattention3_blackwell of SageAttention"),
        make=_sage_3,
        capabilities=AttentionCapabilities(
            devices=("cuda",),
            precisions=_HALF,
            head_dims=(64, 128),
            min_compute_capability=(10, 0),
            has_masks=False,
            has_grouped_heads=False,
            has_lse=False,
        ),
    ),
    Backend(
        name="reference",
        aliases=("_native_math",),
        look=_installed("torch", _INSTALL_TORCH),
        make=_reference,
    ),
)
