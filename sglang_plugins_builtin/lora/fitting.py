"""Whether an adapter fits a model, from headers alone: which of its tensors changes which layer, and how strongly."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from sglang_core import ComponentDescription, ConfigError, ModelDescription

from .adapters import Adapter, denoisers_of
from .names import TEXT_ENCODER, find_layer, spellings_of, split_component
from .sources import AdapterFile

_TENSOR = re.compile(
    r"(?P<layer>.+)\.(?:(?P<a>lora_A|lora_down|lora\.down)|(?P<b>lora_B|lora_up|lora\.up))(?:\.[\w-]+)?\.weight"
)
_FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16", "fp8"})
#: What is no LoRA, by a part of its tensors' names.
_OTHER_KINDS = (
    (re.compile(r"lora_magnitude_vector|dora_scale"), "is a DoRA, which scales weights too"),
    (re.compile(r"\.hada_w"), "is a LoHa"),
    (re.compile(r"\.lokr_w"), "is a LoKr"),
    (re.compile(r"\.oft_|\.boft_"), "is an OFT"),
    (re.compile(r"\.lora_mid\."), "has a core tensor (Tucker decomposition)"),
    (re.compile(r"\.(diff|diff_b|set_weight)\Z"), "replaces whole weights"),
    (re.compile(r"(lora_[AB](\.[\w-]+)?|lora_up|lora_down|)\.bias\Z"), "changes biases"),
)
_REMEDY = "merge it into the model with the program that made it, or use a plain LoRA"


@frozen(kw_only=True)
class Pair:
    """The two tensors that change one layer, by their names in the file: weight += scale * up @ down.

    The scale is alpha / rank, or alpha / sqrt(rank). Alpha is in the file as ``alpha_name``, or is ``alpha``.
    """

    layer: str
    down: str
    up: str
    rank: int
    alpha_name: str | None = None
    alpha: float
    has_root_scale: bool = False

    def scale(self, stored_alpha: float | None = None) -> float:
        """Return what the product of the two is multiplied by."""
        alpha = self.alpha if stored_alpha is None else stored_alpha
        return alpha / (math.sqrt(self.rank) if self.has_root_scale else self.rank)


#: What an adapter changes: pairs by component.
Fit = Mapping[str, Sequence[Pair]]


def fit_adapter(adapter: Adapter, file: AdapterFile, model: ModelDescription) -> Fit:
    """Return what an adapter changes in the denoisers of a model.

    :raises ConfigError: if it is another kind of adapter, or does not fit.
    """
    label = f"adapter {adapter.nickname!r} ({file.header.path})"
    _refuse_other_kinds(label, file)
    tables = {name: _spellings(model.components[name], label) for name in denoisers_of(model)}
    if not tables:
        raise ConfigError(f"{label}: {model.reference} has no denoiser to change", "use a model with one")
    stored = _parts(file, label)
    named = {split_component(layer)[0] for layer in stored}
    fit: dict[str, list[Pair]] = {name: [] for name in tables}
    for layer, parts in stored.items():
        component, rest = split_component(layer)
        # Names of one denoiser are for both, unless the file tells the two apart.
        places = [component] if component is not None and len(named - {None}) > 1 else list(tables)
        found = {name: find_layer(rest, tables[name]) for name in places if name in tables}
        if not found or None in found.values():
            raise ConfigError(
                f"{label}: the model {model.reference} has no layer for {layer!r}",
                "use an adapter that was trained for this model",
            )
        pair = _pair(layer, parts, adapter, file, label)
        for name, own in found.items():
            assert own is not None
            _check_shapes(pair, file, model.components[name], own, label)
            fit[name].append(evolve(pair, layer=own))
    for name, pairs in fit.items():
        _refuse_repeated(label, name, pairs)
    return fit


def _refuse_other_kinds(label: str, file: AdapterFile) -> None:
    config = file.config
    if config.get("use_dora"):
        raise ConfigError(f"{label} is a DoRA, which scales weights too", _REMEDY)
    if config.get("peft_type", "LORA") != "LORA":
        raise ConfigError(f"{label} is a {config['peft_type']}, not a LoRA", _REMEDY)
    for name in file.header.values_by_name:
        for pattern, what in _OTHER_KINDS:
            if pattern.search(name):
                raise ConfigError(f"{label} {what} ({name})", _REMEDY)
        if TEXT_ENCODER.match(name):
            raise ConfigError(
                f"{label} changes a text encoder too ({name}), which is not supported",
                "use an adapter of the denoiser alone",
            )


def _spellings(component: ComponentDescription, label: str) -> dict[str, str]:
    """Return the layers of a component by every name for them."""
    names = [name for file in component.weights for name in file.shapes_by_name]
    if not names:
        problem = f"{label}: the weights of {component.name} are pickled, so their names are not known while planning"
        raise ConfigError(problem, "use the model in safetensors")
    layers = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    return spellings_of([layer for layer in layers if len(_shape(component, layer)) > 1], component.class_name)


def _shape(component: ComponentDescription, layer: str) -> tuple[int, ...]:
    for file in component.weights:
        if f"{layer}.weight" in file.shapes_by_name:
            return file.shapes_by_name[f"{layer}.weight"]
    return ()


def _parts(file: AdapterFile, label: str) -> dict[str, dict[str, str]]:
    """Return the names of the tensors ``a``, ``b`` and ``alpha`` by the layer, as the file calls it."""
    found: dict[str, dict[str, str]] = {}
    for name, (dtype, _) in file.header.values_by_name.items():
        match = _TENSOR.fullmatch(name)
        if match is not None:
            layer, part = match["layer"], "a" if match["a"] else "b"
        elif name.endswith(".alpha"):
            layer, part = name.removesuffix(".alpha"), "alpha"
        else:
            raise ConfigError(f"{label}: the tensor {name!r} belongs to no LoRA that is known", _REMEDY)
        if part in found.setdefault(layer, {}):
            raise ConfigError(f"{label} has two tensors for one purpose: {name!r}", "give the adapters one by one")
        if dtype not in _FLOATS:
            raise ConfigError(f"{label}: the tensor {name!r} is of type {dtype}", "give the adapter in bf16 or fp32")
        found[layer][part] = name
    if not found:
        raise ConfigError(f"{label} holds no tensors", "give the file that holds the adapter")
    return found


def _pair(layer: str, parts: Mapping[str, str], adapter: Adapter, file: AdapterFile, label: str) -> Pair:
    if not {"a", "b"} <= parts.keys():
        raise ConfigError(
            f"{label}: of {layer!r} one of the two matrices is missing", "download or save the adapter again"
        )
    shapes = file.header.shapes_by_name
    down, up = shapes[parts["a"]], shapes[parts["b"]]
    rank = down[0] if down else 0
    if not rank or len(down) < 2 or len(up) != len(down) or up[1] != rank:
        raise ConfigError(
            f"{label}: the matrices of {layer!r} have the shapes {list(down)} and {list(up)}, which share no rank",
            "download or save the adapter again",
        )
    config = file.config
    told = config.get("r")
    if type(told) is int and told != rank and not config.get("rank_pattern"):
        raise ConfigError(
            f"{label}: the matrices of {layer!r} have the rank {rank}, its configuration says {told}",
            "use the configuration that belongs to the file",
        )
    if "alpha" in parts and math.prod(shapes[parts["alpha"]]) != 1:
        raise ConfigError(f"{label}: {parts['alpha']!r} is no single number", "download or save the adapter again")
    return Pair(
        layer=layer,
        down=parts["a"],
        up=parts["b"],
        rank=rank,
        alpha_name=parts.get("alpha"),
        alpha=_alpha(layer, config, adapter, rank),
        has_root_scale=bool(config.get("use_rslora")),
    )


def _alpha(layer: str, config: Mapping[str, Any], adapter: Adapter, rank: int) -> float:
    """Return alpha as the configuration says, else as the user says, else the rank."""
    patterns = config.get("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        # As PEFT reads it: a name, or a pattern for its end.
        is_own = layer == pattern or layer.endswith(f".{pattern}")
        if is_own and _is_number(value):
            return float(value)
    told = config.get("lora_alpha")
    if told is not None and _is_number(told):
        return float(told)
    return float(rank) if adapter.alpha is None else adapter.alpha


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_shapes(pair: Pair, file: AdapterFile, component: ComponentDescription, layer: str, label: str) -> None:
    shapes, weight = file.header.shapes_by_name, _shape(component, layer)
    down, up = shapes[pair.down], shapes[pair.up]
    fits = up[0] == weight[0] and math.prod(down[1:]) == math.prod(weight[1:]) and math.prod(up[2:]) == 1
    if not fits:
        raise ConfigError(
            f"{label}: its matrices {list(up)} and {list(down)} do not fit {layer}.weight of {component.name}, "
            f"{list(weight)}",
            "use an adapter that was trained for this model",
        )


def _refuse_repeated(label: str, component: str, pairs: Sequence[Pair]) -> None:
    layers = [pair.layer for pair in pairs]
    for layer in layers:
        if layers.count(layer) > 1:
            raise ConfigError(f"{label} changes {layer} of {component} twice", "download or save the adapter again")
