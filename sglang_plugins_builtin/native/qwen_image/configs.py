"""What the configurations of a checkpoint say about its transformer and its language model, without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from sglang_core import ModelLoadError

_USE_DIFFUSERS = "use --backend diffusers"


@frozen(kw_only=True)
class QwenImageTransformerConfig:
    """What ``transformer/config.json`` says."""

    patch_size: int = 2
    in_channels: int = 64
    out_channels: int = 16
    num_layers: int = 60
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 3584
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    #: Whether the tokens of reference images are modulated as noise-free (Qwen-Image-Edit-2511).
    zero_cond_t: bool = False

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "QwenImageTransformerConfig":
        """Read the configuration of a checkpoint in the layout of diffusers.

        :raises ModelLoadError: if it asks for a part that this transformer does not have.
        """
        check_transformer(config)
        known = {name: config[name] for name in _CONFIG_KEYS if config.get(name) is not None}
        known["out_channels"] = config.get("out_channels", 16) or config.get("in_channels", 64)
        made = cls(**{**known, "axes_dims_rope": tuple(known.get("axes_dims_rope", (16, 56, 56)))})
        if sum(made.axes_dims_rope) != made.attention_head_dim:
            raise ModelLoadError(
                f"transformer/config.json: axes_dims_rope {list(made.axes_dims_rope)} do not add up to "
                f"attention_head_dim {made.attention_head_dim}",
                "download the model again",
            )
        return made

    @property
    def channels(self) -> int:
        """Return the number of channels of a token."""
        return self.num_attention_heads * self.attention_head_dim


def check_transformer(config: Mapping[str, Any]) -> None:
    """Refuse parts that the transformer here does not have, and sizes that none has.

    :raises ModelLoadError: naming the part or the size.
    """
    _check_sizes(config, _CONFIG_SIZES, "transformer/config.json")
    axes = config.get("axes_dims_rope")
    if axes is not None and not (isinstance(axes, list | tuple) and len(axes) == 3 and all(map(_is_size, axes))):
        raise _unusable("transformer/config.json", "axes_dims_rope", axes, "three whole numbers above 0")
    for name in ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"):
        if config.get(name):
            raise ModelLoadError(
                f"transformer/config.json sets {name}, which the family qwen-image does not have", _USE_DIFFUSERS
            )


_CONFIG_KEYS = (
    "patch_size",
    "in_channels",
    "num_layers",
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "axes_dims_rope",
    "zero_cond_t",
)
_CONFIG_SIZES = (*_CONFIG_KEYS[:6], "out_channels")


@frozen(kw_only=True)
class TextEncoderConfig:
    """What ``text_encoder/config.json`` says about the language model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    #: How many frequencies in turn belong to each of the three positions; they matter where images are among the text.
    mrope_section: tuple[int, ...] = (16, 24, 24)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "TextEncoderConfig":
        """Read the configuration, with the language model in ``text_config`` or, in older files, at the top.

        :raises ModelLoadError: if a value is missing, or it asks for a part that this encoder does not have.
        """
        check_text_encoder(config)
        text, rope = _text_and_rope(config)
        theta = rope.get("rope_theta") or text.get("rope_theta") or 1e6
        try:
            return cls(
                **{name: int(text[name]) for name in _SIZES},
                num_key_value_heads=int(text.get("num_key_value_heads") or text["num_attention_heads"]),
                rms_norm_eps=float(text.get("rms_norm_eps") or 1e-6),
                rope_theta=float(theta),
                mrope_section=tuple(rope.get("mrope_section") or (16, 24, 24)),
            )
        except KeyError as error:
            raise ModelLoadError(
                f"text_encoder/config.json has no {error.args[0]}", "download the model again, with its text_encoder"
            ) from error


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def check_text_encoder(config: Mapping[str, Any]) -> None:
    """Refuse settings that the language model here does not have, and sizes that none has.

    :raises ModelLoadError: naming the setting and its value.
    """
    _part(config, "vision_config")
    text, rope = _text_and_rope(config)
    _check_sizes(text, (*_SIZES, "num_key_value_heads"), "text_encoder/config.json")
    for name, value in (("rms_norm_eps", text.get("rms_norm_eps")), ("rope_theta", rope.get("rope_theta"))):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise _unusable("text_encoder/config.json", name, value, "a number")
    for name, value, supported in (
        ("hidden_act", text.get("hidden_act", "silu"), ("silu",)),
        ("rope_type", rope.get("rope_type") or rope.get("type") or "default", ("default", "mrope")),
        ("use_sliding_window", bool(text.get("use_sliding_window")), (False,)),
    ):
        if value not in supported:
            raise ModelLoadError(
                f"text_encoder/config.json: {name} is {value!r}, the family qwen-image has {supported[0]!r} only",
                _USE_DIFFUSERS,
            )


def _text_and_rope(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    text = {name: value for name, value in {**config, **_part(config, "text_config")}.items() if value is not None}
    return text, _part(text, "rope_parameters") or _part(text, "rope_scaling")


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name) or {}
    if not isinstance(part, Mapping):
        raise _unusable("text_encoder/config.json", name, part, "an object")
    return part


def _check_sizes(config: Mapping[str, Any], names: Sequence[str], source: str) -> None:
    for name in names:
        if config.get(name) is not None and not _is_size(config[name]):
            raise _unusable(source, name, config[name], "a whole number above 0")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _unusable(source: str, name: str, value: object, wanted: str) -> ModelLoadError:
    return ModelLoadError(f"{source}: {name} is {value!r}, not {wanted}", "download the model again")
