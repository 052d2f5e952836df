"""FlashAttention 2, 3 and 4: which of them is installed, and which the GPU wants. Nothing of them is imported."""

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sglang_core import Attention, AttentionCapabilities, Availability, UnavailableError

#: Of a backend whose packages are there, but nothing for them to run on.
NO_GPU = Availability.no("this machine has no NVIDIA GPU whose driver answers", "use torch_sdpa")
_HEAD_DIMS = (32, 64, 96, 128, 160, 192, 224, 256)


@frozen(kw_only=True)
class FlashVersion:
    """One generation of FlashAttention."""

    name: str
    aliases: tuple[str, ...] = ()
    #: Modules that have ``flash_attn_func``, in the order they are tried.
    modules: tuple[str, ...]
    remedy: str
    capabilities: AttentionCapabilities
    #: The least and the first too large compute capability that it is made for: there it goes before the others.
    made_for: tuple[tuple[int, int], tuple[int, int]]

    def module(self) -> str | None:
        """Return the installed module, if there is one."""
        return next((module for module in self.modules if _is_there(module)), None)


def _capabilities(head_dims: tuple[int, ...], least: tuple[int, int], below: tuple[int, int]) -> AttentionCapabilities:
    return AttentionCapabilities(
        devices=("cuda",),
        precisions=("bf16", "fp16"),
        head_dims=head_dims,
        min_compute_capability=least,
        below_compute_capability=below,
        has_masks=False,
    )


VERSIONS = (
    FlashVersion(
        name="fa4",
        aliases=("flash_4_hub",),
        modules=("flash_attn.cute",),
        remedy="install the folder flash_attn/cute of flash-attention",
        capabilities=_capabilities((64, 96, 128), (9, 0), (12, 0)),
        made_for=((10, 0), (12, 0)),
    ),
    FlashVersion(
        name="fa3",
        aliases=("_flash_3", "_flash_3_hub"),
        modules=("flash_attn_3.flash_attn_interface", "flash_attn_interface"),
        remedy="build the folder hopper of flash-attention from source",
        capabilities=_capabilities((64, 96, 128, 192, 256), (9, 0), (10, 0)),
        made_for=((9, 0), (10, 0)),
    ),
    FlashVersion(
        name="fa2",
        modules=("flash_attn",),
        remedy='pip install "flash-attn>=2.6.3" --no-build-isolation',
        capabilities=_capabilities(_HEAD_DIMS, (8, 0), (12, 0)),
        made_for=((8, 0), (9, 0)),
    ),
)


def gpu_capability() -> tuple[int, int] | None:
    """Return the compute capability of the least able GPU, ``None`` where no driver answers."""
    from sglang_core import compute_capability  # with ctypes: only where a backend is looked at

    return compute_capability()


def _is_there(module: str) -> bool:
    """Say whether a module is installed without importing its parent, which may load a CUDA library."""
    package, _, inner = module.partition(".")
    spec = importlib.util.find_spec(package)
    if spec is None:
        return False
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if inner:
        return any((folder / inner).is_dir() or (folder / f"{inner}.py").is_file() for folder in folders)
    # FlashAttention 4 alone brings the folder flash_attn too, with nothing but its own part in it
    return not folders or any((folder / "__init__.py").is_file() for folder in folders)


@frozen(kw_only=True)
class FlashAttention:
    """The flash kernels of Tri Dao and others: exact, without a mask."""

    name: str
    versions: tuple[FlashVersion, ...]
    aliases: Collection[str] = ()
    order: int | None = None
    is_lossy: bool = False
    parameters: Mapping[str, type] = field(factory=dict)

    @property
    def capabilities(self) -> AttentionCapabilities:
        """Return those of the version that would be used; where none is installed, those of the most able one."""
        chosen = self._chosen()
        return chosen.capabilities if chosen else self.versions[-1].capabilities

    def probe(self) -> Availability:
        """Say which version is installed."""
        chosen = self._chosen()
        if chosen is not None and gpu_capability() is None:
            return NO_GPU
        if chosen is not None:
            return Availability.yes(chosen.name if len(self.versions) > 1 else "")
        names = " nor ".join(dict.fromkeys(version.modules[-1] for version in self.versions))
        reason = f"neither {names} is installed" if len(self.versions) > 1 else f"{names} is not installed"
        return Availability.no(reason, self.versions[-1].remedy)

    def _chosen(self) -> FlashVersion | None:
        installed = [version for version in self.versions if version.module() is not None]
        return by_preference(installed, gpu_capability())[0] if installed else None

    def create(self, parameters: Mapping[str, Any]) -> Attention:
        """Import the kernels.

        :raises UnavailableError: if they do not import.
        """
        chosen = self._chosen()
        module = chosen.module() if chosen else None
        if chosen is None or module is None:
            answer = self.probe()
            raise UnavailableError(f"attention backend {self.name}: {answer.reason}", answer.remedy)
        from .flash_kernels import flash_attention  # torch, and kernels that load CUDA libraries

        return flash_attention(self.name, chosen, module)


def by_preference(versions: Sequence[FlashVersion], capability: tuple[int, int] | None) -> list[FlashVersion]:
    """Sort versions: first the one made for this GPU, then those that run on it, the newest first."""

    def rank(version: FlashVersion) -> tuple[bool, bool]:
        if capability is None:
            return (False, False)
        least, below = version.made_for
        can = version.capabilities
        runs = (can.min_compute_capability or (0, 0)) <= capability < (can.below_compute_capability or (99, 0))
        return (not least <= capability < below, not runs)

    return sorted(versions, key=rank)
