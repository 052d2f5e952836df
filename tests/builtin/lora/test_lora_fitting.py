"""What of an adapter fits a model: decided from headers, so that nothing heavy is loaded for it."""

import json
import subprocess
import sys

import pytest
from lora_adapters import DEMO, demo_layers, demo_model, described, pair_shapes, write_header

from sglang_core import ConfigError, create_plugin_manager, plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.lora.adapters import Adapter
from sglang_plugins_builtin.lora.fitting import fit_adapter
from sglang_plugins_builtin.lora.sources import open_adapter

LAYERS = {"transformer_blocks.0.attn.to_q": (192, 192), "transformer_blocks.5.img_mlp.net.0.proj": (768, 192)}
WAN_LAYERS = {
    "blocks.0.attn1.to_q": (32, 32),
    "blocks.0.attn1.to_out.0": (32, 32),
    "blocks.0.attn2.to_k": (32, 32),
    "blocks.0.attn2.add_k_proj": (32, 16),
    "blocks.0.ffn.net.0.proj": (64, 32),
    "blocks.0.ffn.net.2": (32, 64),
    "condition_embedder.time_embedder.linear_1": (32, 256),
    "condition_embedder.time_proj": (192, 32),
    "condition_embedder.text_embedder.linear_2": (32, 32),
    "proj_out": (64, 32),
}
WAN_ORIGINAL = (
    "blocks.0.self_attn.q",
    "blocks.0.self_attn.o",
    "blocks.0.cross_attn.k",
    "blocks.0.cross_attn.k_img",
    "blocks.0.ffn.0",
    "blocks.0.ffn.2",
    "time_embedding.0",
    "time_projection.1",
    "text_embedding.2",
    "head.head",
)


@pytest.fixture(scope="module")
def manager():
    return create_plugin_manager(only_built_ins=True)


@pytest.fixture(scope="module")
def settings(manager):
    return make_settings(manager)


@pytest.fixture
def fit(manager, settings):
    """Return what the adapter at a path changes in a model, the embedded one if none is named."""

    def fit(path, model=None, **values):
        adapter = Adapter(nickname="style", path=str(path), **values)
        return fit_adapter(adapter, open_adapter(manager, adapter, settings), model or demo_model())

    return fit


def refusal(call, *arguments, **values):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **values)
    assert caught.value.remedy
    assert "\n" not in caught.value.problem
    return caught.value.problem


FORMATS = {
    "diffusers": {"prefix": "transformer."},
    "PEFT": {"prefix": "base_model.model."},
    "PEFT of a pipeline": {"prefix": "base_model.model.transformer."},
    "PEFT with the name of the adapter": {"down": "lora_A.default", "up": "lora_B.default"},
    "ComfyUI": {"prefix": "diffusion_model."},
    "ComfyUI with kohya's words": {"prefix": "diffusion_model.", "down": "lora_down", "up": "lora_up"},
    "without a prefix": {},
    "old diffusers": {"prefix": "transformer.", "down": "lora.down", "up": "lora.up"},
}


@pytest.mark.parametrize("words", FORMATS.values(), ids=FORMATS)
def test_names_of_every_program_are_known(words, fit, tmp_path):
    path = write_header(tmp_path / "a.safetensors", pair_shapes(LAYERS, **words))

    pairs = fit(path)["transformer"]

    assert {pair.layer for pair in pairs} == set(LAYERS)
    assert {(pair.rank, pair.alpha, pair.scale()) for pair in pairs} == {(4, 4.0, 1.0)}


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_transformer_", "lycoris_"])
def test_flat_names_of_kohya_are_known(prefix, fit, tmp_path):
    flat = {prefix + name.replace(".", "_"): shape for name, shape in LAYERS.items()}
    shapes = pair_shapes(flat, down="lora_down", up="lora_up") | {f"{name}.alpha": () for name in flat}

    pairs = fit(write_header(tmp_path / "a.safetensors", shapes))["transformer"]

    assert {pair.layer for pair in pairs} == set(LAYERS)
    assert all(pair.alpha_name.endswith(".alpha") and pair.scale(2.0) == 0.5 for pair in pairs)


@pytest.mark.parametrize("is_flat", [False, True], ids=["dots", "flat"])
def test_names_of_wan_s_own_code_are_known(is_flat, fit, tmp_path):
    original = dict(zip(WAN_ORIGINAL, WAN_LAYERS.values(), strict=True))
    if is_flat:
        original = {f"lora_unet_{name.replace('.', '_')}": shape for name, shape in original.items()}
    path = write_header(tmp_path / "a.safetensors", pair_shapes(original, prefix="" if is_flat else "diffusion_model."))

    fitted = fit(path, described({"transformer": ("WanTransformer3DModel", WAN_LAYERS)}))

    assert [pair.layer for pair in fitted["transformer"]] == list(WAN_LAYERS)


def test_adapter_for_one_denoiser_is_for_both_unless_it_tells_them_apart(fit, tmp_path):
    model = described(dict.fromkeys(("transformer", "transformer_2"), ("WanTransformer3DModel", WAN_LAYERS)))
    layer = {"blocks.0.attn1.to_q": (32, 32)}
    one = write_header(tmp_path / "one.safetensors", pair_shapes(layer, prefix="transformer."))
    both = {**pair_shapes(layer, 4, prefix="transformer."), **pair_shapes(layer, 8, prefix="transformer_2.")}
    two = write_header(tmp_path / "two.safetensors", both)

    ranks = [{name: [pair.rank for pair in pairs] for name, pairs in fit(path, model).items()} for path in (one, two)]

    assert ranks == [
        {"transformer": [4], "transformer_2": [4]},
        {"transformer": [4], "transformer_2": [8]},
    ]


CONFIGS = {
    "alpha": ({"lora_alpha": 2, "r": 4}, 0.5),
    "rank-stabilised": ({"lora_alpha": 2, "r": 4, "use_rslora": True}, 1.0),
    "alpha of one layer": ({"lora_alpha": 2, "alpha_pattern": {"attn.to_q": 8}}, 2.0),
    "nothing": ({}, 1.0),
}


@pytest.mark.parametrize(("config", "scale"), CONFIGS.values(), ids=CONFIGS)
def test_scale_is_that_of_the_configuration(config, scale, fit, tmp_path):
    layer = {"transformer_blocks.0.attn.to_q": (192, 192)}
    write_header(tmp_path / "adapter_model.safetensors", pair_shapes(layer, prefix="base_model.model."))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))

    (pair,) = fit(tmp_path)["transformer"]

    assert pair.scale() == scale


def test_configuration_inside_of_the_file_counts_and_the_user_s_alpha_where_there_is_none(fit, tmp_path):
    shapes = pair_shapes(LAYERS, prefix="transformer.")
    told = write_header(
        tmp_path / "told.safetensors", shapes, lora_adapter_metadata=json.dumps({"transformer.lora_alpha": 8})
    )
    silent = write_header(tmp_path / "silent.safetensors", shapes)

    scales = [fit(path, alpha=2.0)["transformer"][0].scale() for path in (told, silent)]

    assert scales == [2.0, 0.5]


Q = "transformer.transformer_blocks.0.attn.to_q"
GOOD = pair_shapes({Q: (192, 192)})
REFUSED = {
    "DoRA": ({**GOOD, f"{Q}.lora_magnitude_vector": (192,)}, "is a DoRA"),
    "DoRA of kohya": ({**GOOD, f"{Q}.dora_scale": (192, 1)}, "is a DoRA"),
    "LoHa": ({f"{Q}.hada_w1_a": (192, 4)}, "is a LoHa"),
    "LoKr": ({f"{Q}.lokr_w1": (4, 4)}, "is a LoKr"),
    "whole weights": ({**GOOD, f"{Q}.diff": (192, 192)}, "replaces whole weights"),
    "bias": ({**GOOD, f"{Q}.lora_B.bias": (192,)}, "changes biases"),
    "text encoder": ({**GOOD, "text_encoder.layers.0.q.lora_A.weight": (4, 8)}, "changes a text encoder too"),
    "text encoder of kohya": ({"lora_te1_layers_0.lora_down.weight": (4, 8)}, "changes a text encoder too"),
    "unknown tensor": ({**GOOD, "transformer.scale_shift": (3,)}, "belongs to no LoRA that is known"),
    "unknown layer": (pair_shapes({"transformer.double_blocks.0.qkv": (192, 192)}), "has no layer for"),
    "norm": (pair_shapes({"transformer.txt_norm": (128, 128)}), "has no layer for"),
    "another model": (pair_shapes({Q: (256, 192)}), "do not fit transformer_blocks.0.attn.to_q.weight"),
    "another input": (pair_shapes({Q: (192, 256)}), "of transformer, [192, 192]"),
    "ranks that differ": ({f"{Q}.lora_A.weight": (4, 192), f"{Q}.lora_B.weight": (192, 8)}, "share no rank"),
    "rank zero": ({f"{Q}.lora_A.weight": (0, 192), f"{Q}.lora_B.weight": (192, 0)}, "share no rank"),
    "one matrix": ({f"{Q}.lora_A.weight": (4, 192)}, "one of the two matrices is missing"),
    "alpha of several numbers": ({**GOOD, f"{Q}.alpha": (2,)}, "is no single number"),
    "a layer twice": ({**GOOD, **pair_shapes({Q[12:]: (192, 192)})}, "changes transformer_blocks.0.attn.to_q of"),
    "nothing": ({}, "holds no tensors"),
}


@pytest.mark.parametrize(("shapes", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(shapes, problem, fit, tmp_path):
    path = write_header(tmp_path / "a.safetensors", shapes)

    assert problem in refusal(fit, path)


def test_whole_numbers_are_refused(fit, tmp_path):
    path = write_header(tmp_path / "a.safetensors", GOOD, dtype="I8")

    assert "is of type i8" in refusal(fit, path)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "LOHA"}, "is a LOHA, not a LoRA"),
        ({"r": 8}, "have the rank 4, its configuration says 8"),
    ],
)
def test_configuration_of_another_adapter_is_refused(config, problem, fit, tmp_path):
    write_header(tmp_path / "adapter_model.safetensors", GOOD)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    assert problem in refusal(fit, tmp_path)


def test_files_that_are_no_adapter_are_refused(fit, tmp_path):
    pickled, several = tmp_path / "pickled", tmp_path / "several"
    pickled.mkdir()
    (pickled / "pytorch_lora_weights.bin").write_bytes(b"pickle")
    for name in ("high.safetensors", "low.safetensors"):
        write_header(several / name, GOOD)

    assert "only pickled weights (pytorch_lora_weights.bin)" in refusal(fit, pickled)
    assert "is no safetensors file" in refusal(fit, pickled / "pytorch_lora_weights.bin")
    assert "several files: high.safetensors, low.safetensors" in refusal(fit, several)
    assert "there is no file 'hihg.safetensors'" in refusal(fit, several, weight_name="hihg.safetensors")
    assert "there is no such file or folder" in refusal(fit, tmp_path / "nowhere")
    assert "no adapter is found there" in refusal(fit, "one/two/three")
    assert fit(several, weight_name="low.safetensors")["transformer"]


def test_plan_names_the_adapters_and_refuses_what_does_not_fit(manager, tmp_path):
    style = write_header(tmp_path / "style.safetensors", GOOD)
    broken = write_header(tmp_path / "broken.safetensors", pair_shapes({Q: (7, 7)}))

    def plan(**values):
        return plan_run(manager, make_settings(manager, model_path=DEMO, device="cpu", prompt="x", **values)).plan

    chosen = plan(lora_path=[str(style), str(style)], lora_nickname=["a", "b"], lora_scale=[0.5, 0]).transforms

    assert [(choice.value, choice.reason) for choice in chosen] == [
        ("lora", f"a: {style}, strength 0.5 in transformer")
    ]
    assert plan(lora_path=str(style), lora={}).transforms == ()
    with pytest.raises(ConfigError, match=r"do not fit .* of transformer, \[192, 192\]"):
        plan(lora_path=str(broken))
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(ConfigError, match=r"broken.safetensors of .* is truncated or damaged"):
        plan(lora_path=str(broken), lora_nickname="damaged")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"lora_nickname": "a"}, "lora_nickname is given, and there is no adapter"),
        ({"lora_path": ["x", "y"], "lora_nickname": ["a"]}, "1 nickname(s) for 2 adapter(s)"),
        ({"lora_path": ["x", "y"], "lora_nickname": ["a", "a"]}, "two adapters are called 'a'"),
        ({"lora_path": ["x", "y"], "lora_scale": [1, 2, 3]}, "lora_scale: 3 values for 2 adapter(s)"),
        ({"lora_path": "x", "lora_nickname": "a@b"}, "'a@b' can not be a nickname"),
        ({"lora_path": "x", "lora": {"other": 1}}, "there is no adapter 'other' (loaded: default)"),
        ({"lora_path": "x", "lora": {"default@vae": 1}}, "the model has no component 'vae'"),
        ({"lora_path": "x", "lora": {"default": "much"}}, "the strength of default is 'much'"),
        ({"lora_path": "x", "lora": {"default": True}}, "the strength of default is True"),
        ({"lora_path": "x", "lora": {"default": 1e9}}, "the strength of default is 1000000000.0"),
        ({"lora_path": "x", "lora_scale": 1000}, "lora_scale"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(manager, values, problem):
    with pytest.raises(ConfigError) as caught:
        plan_run(manager, make_settings(manager, model_path=DEMO, device="cpu", prompt="x", **values))

    assert problem in caught.value.problem


def test_planning_with_an_adapter_imports_nothing_heavy(tmp_path):
    style = write_header(tmp_path / "style.safetensors", pair_shapes(demo_layers("to_q"), prefix="transformer."))
    program = (
        "import sys; from sglang_core import create_plugin_manager, plan_run; "
        "from sglang_core.testing import make_settings; m = create_plugin_manager(only_built_ins=True); "
        f"p = plan_run(m, make_settings(m, model_path={DEMO!r}, prompt='x', lora_path={str(style)!r})).plan; "
        "print(p.transforms[0].value, *{'torch', 'safetensors', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["lora"]
