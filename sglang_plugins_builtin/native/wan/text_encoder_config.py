"""The settings of UMT5's encoder. Nothing of torch is imported: planning reads them too."""

from collections.abc import Mapping

from attrs import frozen

from sglang_core import ModelLoadError

from .transformer_config import read_config


@frozen(kw_only=True)
class UMT5Config:
    """What ``config.json`` of the text encoder says; the names are its own."""

    vocab_size: int = 250112
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "gated-gelu"

    @classmethod
    def read(cls, config: Mapping[str, object], source: str) -> "UMT5Config":
        """Return the settings of ``config.json``; ``source`` is the file, for messages.

        :raises ModelLoadError: if a value cannot be used.
        """
        given = {name: value for name, value in config.items() if value is not None}
        read = read_config(cls, given, source, "a UMT5 encoder")
        if read.feed_forward_proj != "gated-gelu":
            raise ModelLoadError(
                f"the native backend has no feed_forward_proj={read.feed_forward_proj!r} as {source} asks for",
                "use --backend diffusers",
            )
        return read
