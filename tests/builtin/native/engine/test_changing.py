"""Weights by their stored names, however layers are packed."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sglang_core import UnavailableError
from sglang_plugins_builtin.native.engine import EncodePrompts, Residency, StagedPipeline
from sglang_plugins_builtin.native.engine.changing import find_weight
from sglang_plugins_builtin.native.layers import Linear, pack_linears


@pytest.fixture
def module():
    """A block with three layers packed into one, one that is plain, and one that was dropped."""
    generator = torch.Generator().manual_seed(0)
    block = nn.Module()
    for name, size in (("to_q", 4), ("to_k", 2), ("to_v", 3), ("to_out", 5)):
        layer = Linear(6, size)
        layer.weight.data = torch.randn(size, 6, generator=generator)
        layer.bias.data = torch.zeros(size)
        setattr(block, name, layer)
    block.unused = None
    owner = nn.Module()
    owner.blocks = nn.ModuleList([block])
    owner.values = {name: getattr(block, name).weight.data.clone() for name in ("to_q", "to_k", "to_v", "to_out")}
    pack_linears(block, ("to_q", "to_k", "to_v"), into="to_qkv")
    return owner


@pytest.mark.parametrize("name", ["to_q", "to_k", "to_v", "to_out"])
def test_weight_is_read_and_written_by_its_stored_name(module, name):
    place = find_weight(module, f"blocks.0.{name}.weight")
    before = place.read()
    new = torch.ones_like(before)

    place.write(new)

    assert torch.equal(before, module.values[name])
    for other, value in module.values.items():
        now = find_weight(module, f"blocks.0.{other}.weight").read()
        assert torch.equal(now, new if other == name else value), other
    place.write(before)
    assert torch.equal(find_weight(module, f"blocks.0.{name}.weight").read(), module.values[name])


def test_parameter_stays_the_same_object(module):
    parameters = list(module.parameters())

    find_weight(module, "blocks.0.to_k.weight").write(torch.ones(2, 6))

    assert all(one is other for one, other in zip(parameters, module.parameters(), strict=True))


def test_layer_computes_with_the_written_weight(module):
    place = find_weight(module, "blocks.0.to_out.weight")

    place.write(2 * place.read())

    x = torch.arange(6.0)
    assert torch.equal(module.blocks[0].to_out(x), 2 * (module.values["to_out"] @ x))


@pytest.mark.parametrize(
    "name", ["blocks.0.unused.weight", "blocks.1.to_q.weight", "blocks.0.to_q.bias", "none.weight"]
)
def test_what_the_module_has_dropped_is_nowhere(module, name):
    assert find_weight(module, name) is None


def test_layer_that_computes_with_something_else_is_refused(module):
    module.blocks[0].to_out.kernel = lambda x, activation: x

    with pytest.raises(UnavailableError, match=r"blocks\.0\.to_out\.weight can not be changed"):
        find_weight(module, "blocks.0.to_out.weight")


@pytest.mark.parametrize("mode", ["component-offload", "layerwise-offload"])
def test_weights_that_live_elsewhere_are_changed_where_they_live(mode, module):
    device = torch.device("cpu")  # a device of its own is not needed: offloaded weights are copied all the same
    residency = Residency(device)
    residency.place("transformer", module, mode, [module.blocks[0]])
    pipeline = StagedPipeline(
        SimpleNamespace(device=SimpleNamespace(value="cpu")), [], {"transformer": module}, residency
    )
    x = torch.arange(6.0)
    module.blocks[0].forward = lambda x: module.blocks[0].to_out(x)

    def run():
        residency.use("transformer")
        return module.blocks[0](x)

    before = run()
    original = pipeline.read_weight("transformer", "blocks.0.to_out.weight")
    pipeline.write_weight("transformer", "blocks.0.to_out.weight", 2 * original)
    in_the_middle = run()
    residency.release()
    pipeline.write_weight("transformer", "blocks.0.to_out.weight", original)

    assert torch.equal(in_the_middle, 2 * before)
    assert torch.equal(run(), before)


@pytest.mark.parametrize(("component", "num_remembered"), [("text_encoder", 0), ("transformer", 1)])
def test_prompts_are_encoded_again_once_their_encoder_is_changed(component, num_remembered, module):
    residency = Residency(torch.device("cpu"))
    encode = EncodePrompts(lambda prompt: torch.ones(1, 1, 1), residency, is_guided=lambda request: False)
    plan = SimpleNamespace(device=SimpleNamespace(value="cpu"))
    pipeline = StagedPipeline(plan, [encode], {component: module}, residency)
    encode.cache.get_or_make("red", lambda: torch.ones(1, 1, 1))

    original = pipeline.read_weight(component, "blocks.0.to_out.weight")
    pipeline.write_weight(component, "blocks.0.to_out.weight", 2 * original)

    assert len(encode.cache) == num_remembered
