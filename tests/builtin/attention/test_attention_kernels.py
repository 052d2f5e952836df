"""What the kernels compute, on the CPU."""

import math
import sys
import types

import pytest
import torch
from attrs import evolve

from sglang_core import AttentionCapabilities, UnavailableError
from sglang_core.testing import check_attention_backend
from sglang_plugins_builtin.attention import backends, flash_versions
from sglang_plugins_builtin.attention.calls import KernelAttention
from sglang_plugins_builtin.attention.reference import plain_attention
from sglang_plugins_builtin.attention.torch_kernels import TorchSdpa, blocked_attention, prefers_blocks

BACKENDS = {backend.name: backend for backend in backends.BUILT_IN}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["torch_sdpa", "reference"])
def test_backend_for_the_cpu_keeps_the_contract(name, precision):
    check_attention_backend(BACKENDS[name], precision=precision)


def draw(tokens, key_tokens, heads=2, head_dim=16, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, n, heads, head_dim, generator=generator).to(dtype) for n in (tokens, key_tokens, key_tokens)]


def relative_l2(result, exact):
    return float((result.double() - exact.double()).norm() / exact.double().norm())


def test_blocks_give_what_one_product_gives(monkeypatch):
    # blocks of 100 rows and one head at once: 250 rows leave a rest, in fp32 nothing but rounding differs
    monkeypatch.setattr("sglang_plugins_builtin.attention.torch_kernels._BLOCK_ROWS", 100)
    monkeypatch.setattr("sglang_plugins_builtin.attention.torch_kernels._BLOCK_BYTES", 100 * 300 * 4)
    query, key, value = draw(250, 300, dtype=torch.float32)

    blocked = blocked_attention(query, key, value, None)

    exact, _ = plain_attention(query, key, value, None, None, False)
    assert blocked.shape == query.shape
    assert relative_l2(blocked, exact) < 1e-6


@pytest.mark.parametrize("has_matrix_units", [False, True])
def test_long_bf16_attention_on_the_cpu_takes_blocks_without_amx_and_stays_within_bf16(has_matrix_units, monkeypatch):
    where = "sglang_plugins_builtin.attention.torch_kernels._has_matrix_units"
    monkeypatch.setattr(where, lambda: has_matrix_units)
    query, key, value = draw(1600, 1600, heads=1)
    assert prefers_blocks(query, key) is not has_matrix_units

    result = TorchSdpa().attend(query, key, value)

    exact, _ = plain_attention(query.float(), key.float(), value.float(), None, None, False)
    assert result.dtype == torch.bfloat16
    assert relative_l2(result, exact) < 1e-2  # bf16 keeps 8 bits; measured 4e-3


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (draw(1600, 1600, dtype=torch.float32)[0], draw(1600, 1600, dtype=torch.float32)[1]),
        (draw(64, 1600)[0], draw(64, 1600)[1]),
        (draw(1600, 1600, heads=4)[0], draw(1600, 1600, heads=2)[1]),
    ],
    ids=["fp32", "short", "grouped"],
)
def test_everything_else_goes_to_torch(query, key):
    assert not prefers_blocks(query, key)


def test_a_large_additive_value_keeps_its_digits_in_bf16():
    """Padding that stands for many keys is a bias of log(n): rounded to bf16 its weight would be off by percents."""
    query, key, value = draw(8, 4)
    mask = torch.tensor([0.0, 0.0, 0.0, math.log(491)])[None, None, None]

    result = TorchSdpa().attend(query, key, value, mask=mask)

    repeated = [torch.cat([t[:, :3], t[:, 3:].expand(-1, 491, -1, -1)], dim=1).float() for t in (key, value)]
    exact, _ = plain_attention(query.float(), *repeated, None, None, False)
    assert relative_l2(result, exact) < 1e-2


def test_causal_attention_of_other_lengths_is_refused():
    with pytest.raises(UnavailableError) as refused:
        TorchSdpa().attend(*draw(3, 5), is_causal=True)

    assert refused.value.problem == "causal attention of 3 queries over 5 keys is not defined"
    assert refused.value.remedy == "give a mask that says which keys each query sees"


NOTHING = AttentionCapabilities(
    has_masks=False, has_causal=False, has_cross=False, has_grouped_heads=False, has_lse=False
)
REFUSED = {
    "a mask": lambda a: a.attend(*draw(4, 4), mask=torch.ones(4, dtype=torch.bool)),
    "causal attention": lambda a: a.attend(*draw(4, 4), is_causal=True),
    "cross attention": lambda a: a.attend(*draw(4, 5)),
    "grouped key heads": lambda a: a.attend(draw(4, 4, heads=4)[0], *draw(4, 4, heads=2)[1:]),
    "the log-sum-exp": lambda a: a.attend_with_lse(*draw(4, 4)),
}


@pytest.mark.parametrize(("what", "call"), REFUSED.items(), ids=REFUSED)
def test_a_kernel_is_not_asked_for_what_its_backend_does_not_declare(what, call):
    attention = KernelAttention("narrow", NOTHING, lambda *arguments: pytest.fail("the kernel was called"))

    with pytest.raises(UnavailableError) as refused:
        call(attention)

    assert refused.value.problem == f"attention backend narrow does not compute {what}"
    assert "--attention-backend torch_sdpa" in refused.value.remedy


def flash_func(flag, name):
    """A stand-in with the signature and layouts of a flash package, computing with the definition."""

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False, **further):
        assert set(further) <= {flag}
        out, lse = plain_attention(q, k, v, None, softmax_scale, causal)
        return (out, lse.transpose(1, 2), None) if further.get(flag) else out

    module = types.ModuleType(name)
    module.flash_attn_func = flash_attn_func
    return module


@pytest.mark.parametrize(
    ("name", "module", "flag"),
    [
        ("fa2", "flash_attn", "return_attn_probs"),
        ("fa3", "flash_attn_interface", "return_attn_probs"),
        ("fa4", "flash_attn.cute", "return_lse"),
    ],
)
def test_flash_attention_is_called_in_its_layout(name, module, flag, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, module, flash_func(flag, module))
    monkeypatch.setattr(flash_versions, "_is_there", lambda wanted: wanted == module)
    monkeypatch.setattr(flash_versions, "gpu_capability", lambda: (9, 0))

    check_attention_backend(BACKENDS[name], precision="bf16")
    check_attention_backend(BACKENDS["fa"], precision="bf16")


def test_sage_attention_is_called_in_its_layout(monkeypatch):
    def sageattn(q, k, v, tensor_layout, is_causal, sm_scale, return_lse):
        assert tensor_layout == "NHD"
        out, lse = plain_attention(q, k, v, None, sm_scale, is_causal)
        return (out, lse.transpose(1, 2)) if return_lse else out

    module = types.ModuleType("sageattention")
    module.sageattn = sageattn
    monkeypatch.setitem(sys.modules, "sageattention", module)

    check_attention_backend(evolve(BACKENDS["sage_attn"], look=BACKENDS["torch_sdpa"].probe), precision="bf16")


def test_the_fp4_kernel_keeps_the_keys_of_the_caller_and_gets_other_scales_through_the_query(monkeypatch):
    def sageattn3_blackwell(q, k, v, is_causal):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out, _ = plain_attention(q, k.clone(), v, None, None, is_causal)
        k.zero_()  # the kernel works in place
        return out.transpose(1, 2)

    module = types.ModuleType("sageattn3")
    module.sageattn3_blackwell = sageattn3_blackwell
    monkeypatch.setitem(sys.modules, "sageattn3", module)
    backend = evolve(BACKENDS["sage_attn_3"], look=BACKENDS["torch_sdpa"].probe)
    query, key, value = draw(4, 4, head_dim=64)
    before = key.clone()

    check_attention_backend(backend, precision="bf16")
    backend.create({}).attend(query, key, value)

    assert torch.equal(key, before)


def test_xformers_is_called_in_its_layout(monkeypatch):
    class LowerTriangularMask:
        pass

    def forward_with_lse(query, key, value, bias, p, scale):
        is_causal = isinstance(bias, LowerTriangularMask)
        out, lse = plain_attention(query, key, value, None if is_causal else bias, scale, is_causal)
        return out, torch.nn.functional.pad(lse.transpose(1, 2), (0, 3))

    ops = types.ModuleType("xformers.ops")
    ops.LowerTriangularMask = LowerTriangularMask
    ops.memory_efficient_attention = lambda *arguments: forward_with_lse(*arguments)[0]
    ops.fmha = types.SimpleNamespace(memory_efficient_attention_forward_requires_grad=forward_with_lse)
    module = types.ModuleType("xformers")
    module.ops = ops
    monkeypatch.setitem(sys.modules, "xformers", module)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)

    check_attention_backend(evolve(BACKENDS["xformers"], look=BACKENDS["torch_sdpa"].probe), precision="fp32")


def test_a_package_that_does_not_import_is_one_sentence(monkeypatch):
    module = types.ModuleType("sageattention")  # without sageattn: built for something else
    monkeypatch.setitem(sys.modules, "sageattention", module)

    with pytest.raises(UnavailableError) as refused:
        BACKENDS["sage_attn"].create({})

    assert refused.value.problem.startswith("attention backend sage_attn does not import: cannot import name")
    assert "torch_sdpa" in refused.value.remedy


@pytest.mark.parametrize(
    ("capability", "order"),
    [((8, 0), ["fa2", "fa4", "fa3"]), ((9, 0), ["fa3", "fa4", "fa2"]), ((10, 0), ["fa4", "fa2", "fa3"])],
)
def test_the_version_made_for_the_gpu_goes_first(capability, order):
    found = flash_versions.by_preference(flash_versions.VERSIONS, capability)

    assert [version.name for version in found] == order
