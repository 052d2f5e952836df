"""Where components live on devices of different sizes, as a user sees it with ``sglang explain``."""

import json

import pytest
from model_folders import write_json

from sglang_core import Machine, OutOfDeviceMemoryError, plan_lines, plan_run
from sglang_core.testing import make_settings

MIB, GIB = 2**20, 2**30
#: Weights of the model in MiB, in bf16.
SIZES = {"text_encoder": 6144, "transformer": 8192, "vae": 512}


@pytest.fixture
def folder(tmp_path):
    """A Qwen-Image of 60 layers whose weight files have headers, and nothing behind them."""
    embedded = tmp_path / "model"
    index = {
        "_class_name": "QwenImagePipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }
    write_json(embedded / "model_index.json", index)
    write_json(embedded / "scheduler/scheduler_config.json", {"shift": 3.0})
    write_json(embedded / "tokenizer/vocab.json", {"a": 0})
    write_json(embedded / "transformer/config.json", {"num_layers": 60})
    write_json(embedded / "text_encoder/config.json", {"hidden_size": 3584, "num_hidden_layers": 28})
    write_json(embedded / "vae/config.json", {})
    layers = {"transformer": ("transformer_blocks", 60), "text_encoder": ("model.layers", 28), "vae": ("decoder.up", 1)}
    for name, (stack, count) in layers.items():
        values = SIZES[name] * MIB // count // (4 if name == "vae" else 2)
        dtype = "F32" if name == "vae" else "BF16"
        write_header(embedded / name / "model.safetensors", {f"{stack}.{i}.w": (dtype, [values]) for i in range(count)})
    return embedded


def write_header(path, tensors):
    """Write a file of the size its header tells, that takes no room on the disk."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = shape[0] * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture
def plan(manager, folder):
    """Plan for a device with so many GiB free."""

    def make(free_gib, device="cuda", **settings):
        free = None if free_gib is None else int(free_gib * GIB)
        machine = Machine(has_device=lambda device: True, free_bytes=lambda device: free)
        values = {"prompt": "a", "model_path": str(folder), "backend": "sglang", "device": device, **settings}
        return plan_run(manager, make_settings(manager, **values), machine=machine).plan

    return make


def residencies(plan):
    return {name: each.residency.value for name, each in plan.components.items() if each.num_bytes}


MOVED, STREAMED, RESIDENT = "component-offload", "layerwise-offload", "resident"
LADDER = {
    "all fits": (40, RESIDENT, RESIDENT, RESIDENT),
    "without the text encoder": (16.5, MOVED, RESIDENT, RESIDENT),
    "without text encoder and VAE": (15.9, MOVED, RESIDENT, MOVED),
    "one at a time": (11.5, MOVED, MOVED, MOVED),
    "streamed denoiser": (9, MOVED, STREAMED, MOVED),
    "all streamed": (6, STREAMED, STREAMED, MOVED),
}


@pytest.mark.parametrize(("free", "text_encoder", "transformer", "vae"), LADDER.values(), ids=LADDER.keys())
def test_least_costly_offload_that_fits_is_chosen(plan, free, text_encoder, transformer, vae):
    made = plan(free, width=512, height=512)

    assert residencies(made) == {"text_encoder": text_encoder, "transformer": transformer, "vae": vae}
    assert made.memory.device_peak_bytes < free * GIB
    assert all(each.residency.is_automatic for each in made.components.values())


def test_explain_tells_choice_and_numbers(plan):
    resident, offloaded = "\n".join(plan_lines(plan(40))), "\n".join(plan_lines(plan(16.5, width=512, height=512)))

    assert "resident  (automatic: it fits: about " in resident
    assert "GiB are needed, 40.0 GiB are free)" in resident
    assert "component-offload  (automatic: with everything resident about " in offloaded
    assert "GiB are needed, 16.5 GiB are free; so about " in offloaded


def test_larger_picture_needs_more_offload(plan):
    small, large = plan(16.5, width=512, height=512), plan(16.5, width=2048, height=2048)

    assert residencies(small)["transformer"] == RESIDENT
    assert residencies(large)["transformer"] != RESIDENT


def test_what_does_not_fit_at_all_names_the_least_need_and_a_size(plan):
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        plan(6, width=2048, height=2048)

    assert "2048x2048 of" in caught.value.problem
    assert "needs at least " in caught.value.problem
    assert "with every component offloaded, and 6.0 GiB are free" in caught.value.problem
    assert "the largest of this shape that fits" in caught.value.remedy


def test_device_that_holds_nothing_names_settings_that_save(plan):
    with pytest.raises(OutOfDeviceMemoryError) as caught:
        plan(0.1)

    assert "no smaller size fits either" in caught.value.remedy
    assert "--vae-tiling" in caught.value.remedy


GIVEN = {
    "one flag": ({"vae_cpu_offload": True}, {"text_encoder": RESIDENT, "transformer": RESIDENT, "vae": MOVED}),
    "a map": (
        {"component_residency": {"transformer": STREAMED}},
        {"text_encoder": RESIDENT, "transformer": STREAMED, "vae": RESIDENT},
    ),
}


@pytest.mark.parametrize(("settings", "expected"), GIVEN.values(), ids=GIVEN.keys())
def test_flags_of_the_user_win(plan, settings, expected):
    made = plan(6, **settings)

    assert residencies(made) == expected
    assert any("it may not fit" in warning for warning in made.warnings)


@pytest.mark.parametrize(("device", "free"), [("cpu", 1), ("mps", 1), ("cuda", None)])
def test_nothing_is_offloaded_where_there_is_no_other_memory_or_none_is_told(plan, device, free):
    made = plan(free, device=device)

    assert set(residencies(made).values()) == {RESIDENT}


def test_receipts_and_programs_can_read_the_estimate(plan):
    memory = plan(40).to_json()["memory"]

    assert memory["peak_stage"] in memory["stage_peak_bytes"]
    assert memory["device_peak_bytes"] == max(memory["stage_peak_bytes"].values())
    assert set(memory["stage_peak_bytes"]) == {"encode", "denoise", "decode"}
