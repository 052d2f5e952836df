"""What a component's configuration says about the autoencoder, without torch."""

from typing import Any

from attrs import field, frozen

from sglang_core import ComponentDescription, ConfigError, ModelLoadError

#: What both classes assume where ``config.json`` is silent: Wan 2.1 and Qwen-Image share these statistics.
_LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
_LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
_SHARED_KEYS = frozenset({
    "base_dim", "z_dim", "dim_mult", "num_res_blocks", "attn_scales", "temperal_downsample",
    "dropout", "latents_mean", "latents_std",
})  # fmt: skip
#: The keys each class has; another one would change the architecture in a way that is not known here.
_KEYS = {
    "AutoencoderKLQwenImage": _SHARED_KEYS | {"input_channels"},
    "AutoencoderKLWan": _SHARED_KEYS | {
        "decoder_base_dim", "is_residual", "in_channels", "out_channels", "patch_size",
        "scale_factor_temporal", "scale_factor_spatial",
    },
}  # fmt: skip


@frozen(kw_only=True)
class Level:
    """One resolution of the encoder or decoder, and how it hands on to the next."""

    in_channels: int
    out_channels: int
    #: Whether it ends with a change of the resolution by 2, in space and in time.
    resamples_space: bool
    resamples_time: bool


@frozen(kw_only=True)
class CausalVaeConfig:
    """The autoencoder's architecture; names are those of ``config.json``, also the misspelled one.

    Dropout is not kept: it does nothing at inference.
    """

    base_dim: int
    decoder_base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temperal_downsample: tuple[bool, ...]
    latents_mean: tuple[float, ...] = field(repr=False)
    latents_std: tuple[float, ...] = field(repr=False)
    #: Whether levels have parameterless shortcuts around them, as in Wan 2.2 TI2V 5B.
    is_residual: bool
    in_channels: int
    out_channels: int
    #: Pixels per side that are folded into channels before the encoder; 1 for none.
    patch_size: int

    @classmethod
    def from_component(cls, component: ComponentDescription) -> "CausalVaeConfig":
        """Return the configuration of a component of the class AutoencoderKLQwenImage or AutoencoderKLWan.

        :raises ModelLoadError: for another class, a key that is not known, or a value that cannot be.
        """
        keys = _KEYS.get(component.class_name)
        if keys is None:
            raise ModelLoadError(
                f"{component.name} is a {component.class_name}, not one of {', '.join(sorted(_KEYS))}",
                "use --backend diffusers",
            )
        read = _Reader(component)
        read.refuse_unknown_keys(keys)
        base_dim = read.whole("base_dim", 96)
        image_channels = read.whole("input_channels", 3)
        config = cls(
            base_dim=base_dim,
            decoder_base_dim=read.whole("decoder_base_dim", base_dim),
            z_dim=read.whole("z_dim", 16),
            dim_mult=read.wholes("dim_mult", (1, 2, 4, 4)),
            num_res_blocks=read.whole("num_res_blocks", 2),
            temperal_downsample=read.flags("temperal_downsample", (False, True, True)),
            latents_mean=read.numbers("latents_mean", _LATENTS_MEAN),
            latents_std=read.numbers("latents_std", _LATENTS_STD),
            is_residual=read.flag("is_residual", default=False),
            in_channels=read.whole("in_channels", image_channels),
            out_channels=read.whole("out_channels", image_channels),
            patch_size=read.whole("patch_size", 1),
        )
        config._check(component)
        return config

    def _check(self, component: ComponentDescription) -> None:
        """Refuse values that contradict each other, or that no model has."""
        if component.config.get("attn_scales"):
            # The reference can not encode with them either: its attention takes no chunks.
            raise _refusal(component, f"has attn_scales {component.config['attn_scales']!r}; only none is supported")
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise _refusal(
                component,
                f"has {len(self.temperal_downsample)} values of temperal_downsample "
                f"for the {len(self.dim_mult) - 1} steps between the levels of dim_mult",
            )
        for key, values in (("latents_mean", self.latents_mean), ("latents_std", self.latents_std)):
            if len(values) != self.z_dim:
                raise _refusal(component, f"has {len(values)} values of {key} for z_dim {self.z_dim}")
        if min(self.latents_std) <= 0:
            raise _refusal(component, f"has {min(self.latents_std)} in latents_std, which is divided by")
        for key, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.patch_size**2:
                raise _refusal(component, f"has {key} {channels}, not a multiple of patch_size squared")
        factors = {"scale_factor_spatial": self.spatial_factor, "scale_factor_temporal": self.temporal_factor}
        for key, factor in factors.items():
            if component.config.get(key) not in (None, factor):
                raise _refusal(component, f"has {key} {component.config[key]!r}, but its levels make {factor}")
        if self.is_residual:
            self._check_shortcuts(component)

    def _check_shortcuts(self, component: ComponentDescription) -> None:
        """Refuse widths between which channels can be neither grouped nor repeated evenly."""
        for part, levels in (("encoder", self.encoder_levels), ("decoder", self.decoder_levels)):
            for level in levels:
                factor = (2 if level.resamples_time else 1) * (4 if level.resamples_space else 1)
                wide, narrow = level.in_channels * factor, level.out_channels
                if part == "decoder":
                    wide, narrow = level.out_channels * factor, level.in_channels
                if (part == "encoder" or level.resamples_space) and wide % narrow:
                    raise _refusal(
                        component,
                        f"has a level of the {part} from {level.in_channels} to {level.out_channels} channels, "
                        "around which no shortcut fits",
                    )

    @property
    def spatial_factor(self) -> int:
        """Return how many pixels a latent stands for, per side."""
        return int(2 ** (len(self.dim_mult) - 1)) * self.patch_size

    @property
    def temporal_factor(self) -> int:
        """Return how many frames a latent frame stands for; the first stands for one."""
        return int(2 ** sum(self.temperal_downsample))

    @property
    def frame_channels(self) -> int:
        """Return the channels of a frame: 3 for colour."""
        return self.in_channels // self.patch_size**2

    def num_latent_frames(self, num_frames: int) -> int:
        """Return how many latent frames a clip of ``num_frames`` has."""
        return 1 + (num_frames - 1) // self.temporal_factor

    def num_frames(self, num_latent_frames: int) -> int:
        """Return how many frames are decoded from ``num_latent_frames``."""
        return 1 + (num_latent_frames - 1) * self.temporal_factor

    @property
    def encoder_levels(self) -> tuple[Level, ...]:
        """Return the levels of the encoder, from its input's resolution to the latents'."""
        widths = [self.base_dim * factor for factor in (1, *self.dim_mult)]
        doubles = (*self.temperal_downsample, False)
        return self._levels(widths[:-1], widths[1:], doubles)

    @property
    def decoder_levels(self) -> tuple[Level, ...]:
        """Return the levels of the decoder, from the latents' resolution to its output's."""
        widths = [self.decoder_base_dim * factor for factor in (self.dim_mult[-1], *reversed(self.dim_mult))]
        # Without shortcuts a level's resampling halves its width.
        given = [width // 2 if index and not self.is_residual else width for index, width in enumerate(widths[:-1])]
        doubles = (*reversed(self.temperal_downsample), False)
        return self._levels(given, widths[1:], doubles)

    def _levels(self, given: list[int], made: list[int], doubles: tuple[bool, ...]) -> tuple[Level, ...]:
        last = len(made) - 1
        return tuple(
            Level(in_channels=given[i], out_channels=made[i], resamples_space=i < last, resamples_time=doubles[i])
            for i in range(len(made))
        )


@frozen(kw_only=True)
class Tiling:
    """Frames cut into overlapping tiles, each coded alone and blended where they overlap: less memory, lossy at seams.

    Sizes are in pixels of the frames. A model that folds patches into channels encodes tiles that are larger by its
    ``patch_size``, as diffusers does, so that the same numbers give the same latents.
    """

    height: int = 256
    width: int = 256
    #: From one tile to the next; the rest of a tile overlaps with it.
    stride_height: int = 192
    stride_width: int = 192

    def check(self, config: CausalVaeConfig) -> None:
        """Refuse sizes that leave gaps or cut latents.

        :raises ConfigError: naming the size.
        """
        factor = config.spatial_factor
        for side in ("height", "width"):
            size, stride = getattr(self, side), getattr(self, f"stride_{side}")
            for name, value in ((side, size), (f"stride {side}", stride)):
                if value < factor or value % factor:
                    raise ConfigError(
                        f"the tile {name} of {value} pixels is not a multiple of the {factor} pixels of a latent",
                        f"use {max(factor, round(value / factor) * factor)}",
                    )
            if stride > size:
                raise ConfigError(
                    f"tiles of {side} {size} with a stride of {stride} pixels leave gaps",
                    f"use a stride of at most {size}",
                )


class _Reader:
    """Values of one configuration, each checked for its type."""

    def __init__(self, component: ComponentDescription) -> None:
        self._component = component

    def refuse_unknown_keys(self, known: frozenset[str] | set[str]) -> None:
        unknown = sorted(key for key in self._component.config if not key.startswith("_") and key not in known)
        if unknown:
            raise _refusal(self._component, f"has the key {unknown[0]!r}, which its class does not have")

    def _value(self, key: str, default: Any) -> Any:
        value = self._component.config.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int) -> int:
        value = self._value(key, default)
        if not _is_whole(value):
            raise _refusal(self._component, f"has {key} {value!r}, not a whole number above 0")
        return int(value)

    def wholes(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        values = self._value(key, default)
        if not isinstance(values, list | tuple) or not values or not all(map(_is_whole, values)):
            raise _refusal(self._component, f"has {key} {values!r}, not a list of whole numbers above 0")
        return tuple(values)

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        values = self._value(key, default)
        if not isinstance(values, list | tuple) or not all(map(_is_number, values)):
            raise _refusal(self._component, f"has {key} {values!r}, not a list of numbers")
        return tuple(float(value) for value in values)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise _refusal(self._component, f"has {key} {value!r}, neither true nor false")
        return value

    def flags(self, key: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        values = self._value(key, default)
        if not isinstance(values, list | tuple) or not all(isinstance(value, bool) for value in values):
            raise _refusal(self._component, f"has {key} {values!r}, not a list of true and false")
        return tuple(values)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refusal(component: ComponentDescription, trouble: str) -> ModelLoadError:
    return ModelLoadError(
        f"the configuration of {component.name} ({component.class_name}) {trouble}",
        "use --backend diffusers, or another version of the model",
    )
