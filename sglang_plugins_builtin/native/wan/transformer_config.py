"""The settings of Wan's transformer. Nothing of torch is imported: planning reads them too."""

from collections.abc import Mapping
from typing import TypeVar

from attrs import AttrsInstance, asdict, frozen

from sglang_core import ModelLoadError

C = TypeVar("C", bound=AttrsInstance)
#: Parts whose weights stay in float32 whatever the precision, as diffusers keeps them.
FLOAT32_PARTS = frozenset({"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"})


@frozen(kw_only=True)
class WanConfig:
    """What ``config.json`` of the transformer says; the names are its own."""

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int | None = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    eps: float = 1e-6
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    pos_embed_seq_len: int | None = None

    @property
    def size(self) -> int:
        """Return the number of channels of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def num_out_channels(self) -> int:
        """Return the number of channels of what is predicted."""
        return self.out_channels or self.in_channels

    @classmethod
    def read(cls, config: Mapping[str, object], source: str) -> "WanConfig":
        """Return the settings of ``config.json``; ``source`` is the file, for messages.

        :raises ModelLoadError: if a value cannot be used.
        """
        return read_config(cls, config, source, "a Wan transformer")


def read_config(cls: type[C], config: Mapping[str, object], source: str, what: str) -> C:
    """Return a configuration of which all whole numbers are sizes.

    :param source: the file, for messages.
    :param what: it should describe.
    :raises ModelLoadError: if a value has another type, or a size is one that no layer can have.
    """
    import cattrs  # takes longer than all else here, so only where a Wan model is planned

    try:
        read = cattrs.structure(dict(config), cls)
    except Exception as error:  # cattrs groups many kinds
        problem = "; ".join(cattrs.transform_error(error))
        raise ModelLoadError(f"{source} does not describe {what}: {problem}", "download the file again") from error
    if name := _size_below_1(read):
        raise ModelLoadError(
            f"{source} does not describe {what}: its {name} is {getattr(read, name)}", "download the file again"
        )
    return read


def _size_below_1(config: AttrsInstance) -> str | None:
    """Return the first size in a configuration that no layer can have, ``None`` if there is none."""
    for name, value in asdict(config).items():
        sizes = value if isinstance(value, tuple) else (value,)
        if any(type(size) is int and size < 1 for size in sizes):
            return str(name)
    return None
