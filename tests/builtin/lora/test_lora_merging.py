"""Adapters in the weights of the embedded image model: the numbers, and that taking them out leaves no trace."""

import gc

import numpy as np
import pytest
import torch
from lora_adapters import DEMO, DEMO_FOLDER, DEMO_WEIGHTS, demo_layers, write_adapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from sglang_core import ConfigError, Generator, RequestError, UnavailableError, create_plugin_manager
from sglang_core.testing import no_op_plugin
from sglang_plugins_builtin.native.layers import Linear
from sglang_plugins_builtin.native.layers.onednn import OneDnnKernel, is_supported
from sglang_plugins_builtin.native.layers.widened import WidenedKernel

LAYERS = ("attn.to_q", "attn.add_v_proj", "attn.to_out.0", "img_mlp.net.0.proj", "img_mod.1", "proj_out")
RUN = {"prompt": "a red circle", "num_inference_steps": 2, "width": 64, "height": 64, "save_output": False}
#: In bfloat16 the native engine packs its layers on a CPU.
BACKENDS = {"sglang": "bf16", "diffusers": "fp32"}

#: Of one rounding: by hand it is computed in double precision.
TOLERANCES = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5}}

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("lora") / "style.safetensors", demo_layers(*LAYERS), alpha=2.0)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "other.safetensors"
    return write_adapter(path, demo_layers("attn.to_q", "txt_mlp.net.2"), rank=2, seed=1)


@pytest.fixture(scope="module")
def load():
    """Return generators by settings, each loaded once."""
    loaded = {}

    def load(**settings):
        key = tuple(sorted(settings.items()))
        if key not in loaded:
            loaded[key] = Generator.from_pretrained(DEMO, device="cpu", **settings)
        return loaded[key]

    yield load
    for generator in loaded.values():
        generator.close()


def pipeline_of(generator):
    return generator._engine._pipeline


def weights_of(generator, names):
    pipeline = pipeline_of(generator)
    weights = {name: pipeline.read_weight("transformer", f"{name}.weight") for name in names}
    return {name: weight.clone() for name, weight in weights.items() if weight is not None}


def picture(generator, **settings):
    (output,) = generator.generate(return_frames=True, **{**RUN, **settings}).outputs
    return output.media.frames


def expected_weight(name, dtype, parts):
    """Compute a merged weight by hand: ``parts`` are adapter files with strength and alpha / rank."""
    with safe_open(DEMO_FOLDER / DEMO_WEIGHTS, framework="pt") as file:
        weight = file.get_tensor(f"{name}.weight").to(dtype)
    total = weight.double()
    for path, factor in parts:
        tensors = load_file(path)
        if f"transformer.{name}.lora_A.weight" in tensors:
            down, up = (tensors[f"transformer.{name}.lora_{matrix}.weight"].double() for matrix in "AB")
            total = total + factor * (up @ down)
    return total.to(dtype)


@pytest.mark.parametrize(("backend", "precision"), BACKENDS.items())
def test_merged_weights_are_those_computed_by_hand(backend, precision, load, adapter, other):
    generator = load(backend=backend, precision=precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    names = list(demo_layers())
    picture(generator)  # the native engine has packed its weights by then
    before = weights_of(generator, names)

    picture(generator, lora_path=[str(adapter), str(other)], lora_scale=[0.8, -0.5])
    merged = weights_of(generator, names)
    picture(generator)
    after = weights_of(generator, names)

    # alpha / rank is 2 / 4 in the one, and 1 in the other, which says nothing of alpha
    parts = [(adapter, 0.8 * 2 / 4), (other, -0.5)]
    assert len(before) >= 60
    for name, weight in before.items():
        assert_close(weight, expected_weight(name, dtype, []), rtol=0, atol=0)
        assert_close(merged[name], expected_weight(name, dtype, parts), **TOLERANCES[dtype])
        assert torch.equal(after[name], weight), name
    changed = [name for name in before if not torch.equal(merged[name], before[name])]
    assert {name.partition(".attn.")[2] or name.rpartition(".")[2] for name in changed} >= {"to_q", "proj_out"}
    assert not any(name.endswith("to_k") for name in changed)


@pytest.mark.parametrize(("backend", "precision"), BACKENDS.items())
def test_picture_changes_with_the_adapter_and_comes_back(backend, precision, load, adapter, other):
    generator = load(backend=backend, precision=precision)
    plain = picture(generator)

    styled = picture(generator, lora_path=str(adapter))
    mixed = picture(generator, lora_path=[str(adapter), str(other)])
    again = picture(generator, lora_path=str(adapter))

    assert not np.array_equal(plain, styled)
    assert not np.array_equal(styled, mixed)
    assert np.array_equal(styled, again)
    for settings in ({}, {"lora_path": str(adapter), "lora": {}}, {"lora_path": str(adapter), "lora_scale": 0}):
        assert np.array_equal(picture(generator, **settings), plain)


def test_adapter_that_the_model_was_loaded_with_gives_the_same_picture(load, adapter):
    later = picture(load(backend="sglang", precision="bf16"), lora_path=str(adapter), lora_scale=0.7)

    with Generator.from_pretrained(
        DEMO, device="cpu", backend="sglang", precision="bf16", lora_path=str(adapter), lora_scale=0.7
    ) as generator:
        assert [choice.value for choice in generator.plan.transforms] == ["lora"]
        assert np.array_equal(picture(generator), later)
        assert not np.array_equal(picture(generator, lora={}), later)


def test_native_backend_and_diffusers_make_the_same_of_an_adapter(load, adapter):
    pictures = [
        picture(load(backend=backend, precision="fp32"), lora_path=str(adapter)).astype(int) for backend in BACKENDS
    ]
    plain = picture(load(backend="sglang", precision="fp32")).astype(int)

    assert abs(pictures[0] - pictures[1]).max() <= 2
    assert abs(pictures[0] - plain).max() > 20


def test_file_of_the_model_is_not_written_to(load, adapter):
    before = (DEMO_FOLDER / DEMO_WEIGHTS).read_bytes()

    for backend, precision in BACKENDS.items():
        picture(load(backend=backend, precision=precision), lora_path=str(adapter))

    assert (DEMO_FOLDER / DEMO_WEIGHTS).read_bytes() == before


def unpack(layer):
    if layer.kernel is not None:
        layer.weight.data, layer.kernel = layer.kernel.plain_weight(), None


@pytest.mark.parametrize("kernel", [OneDnnKernel, WidenedKernel])
def test_layers_with_a_fast_kernel_get_one_for_the_changed_weight(kernel, load, adapter):
    if kernel is OneDnnKernel and not is_supported():
        pytest.skip("this processor has no bfloat16 in oneDNN")
    generator = load(backend="sglang", precision="bf16")
    linears = [
        layer for layer in pipeline_of(generator).components["transformer"].modules() if isinstance(layer, Linear)
    ]
    names = list(demo_layers(*LAYERS))
    picture(generator)  # without the adapters of another test
    plain = weights_of(generator, names)
    for layer in linears:
        unpack(layer)
        layer.kernel = kernel(layer.weight.data, layer.bias)
        if kernel is OneDnnKernel:
            layer.weight.data = layer.weight.data.new_empty(0)
    try:
        before = picture(generator)
        styled = picture(generator, lora_path=str(adapter))
        merged = weights_of(generator, names)
        after = picture(generator)
    finally:
        taken_out = weights_of(generator, names)
        for layer in linears:
            unpack(layer)
        pipeline_of(generator)._is_packed = False

    assert all(torch.equal(taken_out[name], plain[name]) for name in plain)
    for name, weight in merged.items():
        assert_close(weight, expected_weight(name, torch.bfloat16, [(adapter, 0.5)]), **TOLERANCES[torch.bfloat16])
    assert not np.array_equal(styled, before)
    assert np.array_equal(before, after)


@pytest.mark.filterwarnings("ignore")  # torch imports what it deprecates itself when it compiles
def test_compiled_blocks_compute_with_the_changed_weights(load, adapter):
    expected = [picture(load(backend="sglang", precision="fp32"), **s) for s in ({}, {"lora_path": str(adapter)})]
    generator = Generator.from_pretrained(DEMO, device="cpu", backend="sglang", precision="fp32")
    with generator:
        pipeline_of(generator).components["transformer"].transformer_blocks[0].compile(backend="eager")
        actual = [picture(generator, **s) for s in ({}, {"lora_path": str(adapter)}, {})]

    assert [np.array_equal(a, b) for a, b in zip(actual, [*expected, expected[0]], strict=True)] == [True] * 3


def test_transforms_that_compile_or_replace_layers_come_later():
    transforms = create_plugin_manager(only_built_ins=True).pipeline_transforms

    assert min(transforms, key=lambda transform: transform.order).name == "lora"


def test_broken_adapter_leaves_the_weights_as_they_are(load, adapter, tmp_path):
    generator = load(backend="sglang", precision="bf16")
    styled = picture(generator, lora_path=str(adapter))
    tensors = load_file(adapter)
    tensors["transformer.proj_out.lora_A.weight"][0, 0] = torch.nan
    save_file(tensors, tmp_path / "broken.safetensors")

    with pytest.raises(RequestError, match="holds values that are no numbers"):
        picture(generator, lora_path=str(tmp_path / "broken.safetensors"))
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        picture(generator, lora_path=str(tmp_path / "gone.safetensors"))

    assert np.array_equal(picture(generator, lora_path=str(adapter)), styled)


def test_failure_in_the_middle_puts_everything_back(load, adapter, other, monkeypatch):
    generator = load(backend="sglang", precision="bf16")
    styled = picture(generator, lora_path=str(adapter))
    pipeline, written = pipeline_of(generator), []
    write = pipeline.write_weight

    def fail_once(component, name, value):
        written.append(name)
        if len(written) == 5:
            raise MemoryError
        write(component, name, value)

    monkeypatch.setattr(pipeline, "write_weight", fail_once)
    with pytest.raises(RequestError, match="LoraTransform failed: MemoryError"):
        picture(generator, lora_path=[str(adapter), str(other)])

    assert np.array_equal(picture(generator, lora_path=str(adapter)), styled)


def test_pipeline_whose_weights_can_not_be_changed_is_refused(adapter, tmp_path):
    manager = create_plugin_manager(only_built_ins=True)
    manager.register(no_op_plugin(order=-1), "no_op")

    with pytest.raises(UnavailableError, match="the backend no_op can not change weights"):
        Generator.from_pretrained(DEMO, manager=manager, device="cpu", lora_path=str(adapter))


def test_nothing_is_kept_of_a_closed_model(adapter):
    manager = create_plugin_manager(only_built_ins=True)
    with Generator.from_pretrained(DEMO, manager=manager, device="cpu", lora_path=str(adapter)):
        held = manager.pipeline_transforms.get("lora")._held
        assert len(held) == 1

    gc.collect()
    assert len(held) == 0


def test_receipt_names_the_adapter(load, adapter, tmp_path):
    generator = load(backend="sglang", precision="bf16")
    style = {"lora_path": str(adapter), "lora_nickname": "style", "lora_scale": 0.5}
    result = generator.generate(**{**RUN, "save_output": True}, output_path=str(tmp_path), **style)

    (output,) = result.outputs
    (told,) = output.receipt["plan"]["transform_details"]["lora"]
    settings = output.receipt["plan"]["settings"]
    assert output.receipt["plan"]["transforms"] == ["lora"]
    assert (told["nickname"], told["strengths"], told["file"]) == ("style", {"transformer": 0.5}, "style.safetensors")
    assert len(told["sha256"]) == 64
    assert settings["lora_path"] == [str(adapter)]
    assert settings["lora_scale"] == [0.5]
