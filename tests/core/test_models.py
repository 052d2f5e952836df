import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from model_folders import write_json, write_pipeline, write_weights

from sglang_core import FolderSource, ModelDescription, ModelLoadError, choose_weight_files, describe_model

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path / "model")


def describe(folder: Path) -> ModelDescription:
    return describe_model(FolderSource("shapes", "directory", folder))


def change_index(folder: Path, **entries: object) -> None:
    path = folder / "model_index.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | entries)


def test_description_tells_classes_sizes_and_precisions(folder: Path) -> None:
    model = describe(folder)

    assert model.pipeline_class == "QwenImagePipeline"
    assert list(model.components) == ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]
    transformer = model.components["transformer"]
    assert (transformer.num_parameters, transformer.dtype) == (1003, "bf16")
    assert transformer.num_bytes == (folder / WEIGHTS).stat().st_size
    assert model.components["scheduler"].config == {"shift": 3.0}
    assert model.components["tokenizer"].files == ("tokenizer/vocab.json",)


def test_components_that_are_left_out_and_settings_are_no_components(folder: Path) -> None:
    change_index(folder, safety_checker=[None, None], is_distilled=True, boundary_ratio=0.875, sizes=[1, 2])

    assert "safety_checker" not in describe(folder).components
    assert "sizes" not in describe(folder).components


def test_only_the_files_a_loader_reads_are_fetched(folder: Path) -> None:
    expected = describe(folder).files
    for name in (
        "flux-single-file.safetensors",
        "README.md",
        "transformer/diffusion_pytorch_model.bin",
        "transformer/diffusion_pytorch_model.fp16.safetensors",
        "transformer/diffusion_flax_model.msgpack",
        "transformer/onnx/model.onnx",
        "transformer/original/model.safetensors",
        "text_encoder/consolidated.safetensors",
        "text_encoder/modeling_own.py",
        "text_encoder/model.safetensors.index.fp16.json",
    ):
        write_weights(folder / name, {"w": ("F32", [1])})

    assert describe(folder).files == expected


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        pytest.param(["u/model.bin", "u/model.safetensors"], ["u/model.safetensors"], id="safetensors before pickle"),
        pytest.param(["u/model.fp16.safetensors", "u/model.bin"], ["u/model.fp16.safetensors"], id="variant alone"),
        pytest.param(["m.fp16.safetensors", "m.non_ema.safetensors"], ["m.fp16.safetensors"], id="one variant"),
        pytest.param(
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors"],
            ["model.safetensors"],
            id="one file before shards",
        ),
        pytest.param(
            ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "a.onnx", "a.h5"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            id="shards",
        ),
        pytest.param(["model.onnx", "model.msgpack", "x.gguf"], [], id="other formats"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_one_set_of_weight_files_is_chosen(paths: list[str], chosen: list[str]) -> None:
    assert choose_weight_files(paths) == chosen


def write_shards(folder: Path, weight_map: object) -> None:
    (folder / WEIGHTS).unlink()
    for number in (1, 2):
        name = f"transformer/diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        write_weights(folder / name, {f"w{number}": ("BF16", [10])})
    write_json(folder / f"{WEIGHTS}.index.json", {"weight_map": weight_map})


def test_shards_are_added_up_and_fetched_with_their_index(folder: Path) -> None:
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    write_shards(folder, {"w1": shards[0], "w2": shards[1]})

    transformer = describe(folder).components["transformer"]

    assert transformer.num_parameters == 20
    assert f"{WEIGHTS}.index.json" in transformer.files


def damage(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-10])


def header(value: object) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


def index(**entries: object) -> Callable[[Path], None]:
    return lambda folder: change_index(folder, **entries)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


HOSTILE = {
    "no index": (remove("model_index.json"), "has no model_index.json"),
    "index is no JSON": (damage("model_index.json", b"{"), "model_index.json of shapes is not JSON"),
    "index is a list": (damage("model_index.json", b"[]"), "is not a JSON object"),
    "index is nested too deep": (damage("model_index.json", b"[" * 200_000), "is not JSON"),
    "index is no text": (damage("model_index.json", b"\xff\xfe\x00"), "is not JSON"),
    "no pipeline class": (index(_class_name=None), "names no pipeline class"),
    "pipeline class of numbers": (index(_class_name=[1, 2]), "names a pipeline class that can not be one"),
    "pipeline module outside": (index(_class_name=["../x", "P"]), "names a pipeline class that can not be one"),
    "component outside": (lambda folder: change_index(folder, **{"../vae": ["diffusers", "V"]}), "can not be one"),
    "absolute component": (lambda folder: change_index(folder, **{"/etc": ["diffusers", "V"]}), "can not be one"),
    "library outside": (index(vae=["../../x", "V"]), "can not be one"),
    "component of number": (index(vae=["diffusers", 5]), "can not be one"),
    "component without folder": (index(vae_2=["diffusers", "V"]), "lists the component vae_2"),
    "component without weights": (
        remove(WEIGHTS),
        "transformer (QwenImageTransformer2DModel) of shapes has no weights",
    ),
    "config is a list": (damage("vae/config.json", b"[1]"), "vae/config.json of shapes is not a JSON object"),
    "truncated weights": (truncate, "is truncated or damaged"),
    "empty weights": (damage(WEIGHTS, b""), "less than the length of a header"),
    "huge header": (damage(WEIGHTS, b"\xff" * 100), "longer than the file"),
    "header is no JSON": (damage(WEIGHTS, struct.pack("<Q", 2) + b"{x"), "is truncated or damaged"),
    "header is a list": (damage(WEIGHTS, header([])), "not a JSON object"),
    "tensor is a string": (damage(WEIGHTS, header({"w": "x"})), "has no description"),
    "tensor without dtype": (damage(WEIGHTS, header({"w": {"shape": [], "data_offsets": [0, 0]}})), "lacks a usable"),
    "negative shape": (
        damage(WEIGHTS, header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}})),
        "lacks a usable",
    ),
    "size and shape disagree": (
        damage(WEIGHTS, header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4)),
        "can not take 4 bytes",
    ),
    "shard outside": (
        lambda folder: write_shards(folder, {"w": "../../secret.safetensors"}),
        "../../secret.safetensors",
    ),
    "shard missing": (lambda folder: write_shards(folder, {"w": "gone.safetensors"}), "gone.safetensors"),
    "shard map of numbers": (lambda folder: write_shards(folder, [1]), "has no usable weight_map"),
    "sampling value of wrong type": (lambda folder: write_json(folder / "sglang.json", {"width": "8"}), "width"),
    "sampling value is true": (lambda folder: write_json(folder / "sglang.json", {"height": True}), "height"),
    "sampling value is zero": (lambda folder: write_json(folder / "sglang.json", {"num_frames": 0}), "num_frames"),
}


@pytest.mark.parametrize(("change", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_damaged_and_hostile_folders_are_refused_in_one_sentence(
    folder: Path, change: Callable[[Path], None], problem: str
) -> None:
    change(folder)

    with pytest.raises(ModelLoadError) as caught:
        describe(folder)

    assert problem in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.remedy


def test_shards_without_their_index_are_refused(folder: Path) -> None:
    write_shards(folder, {})
    (folder / f"{WEIGHTS}.index.json").unlink()

    with pytest.raises(ModelLoadError, match="has weights in shards, but not their"):
        describe(folder)


def test_links_out_of_the_folder_are_followed_as_in_the_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (folder / WEIGHTS).rename(blob)
    (folder / WEIGHTS).symlink_to(blob)

    assert describe(folder).components["transformer"].num_parameters == 1003


def test_circular_and_dangling_links_are_no_files(folder: Path) -> None:
    expected = FolderSource("shapes", "directory", folder).files()
    (folder / "vae/loop").symlink_to(folder, target_is_directory=True)
    (folder / "vae/self").symlink_to("self")
    (folder / "vae/gone").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "vae/pipe")

    assert FolderSource("shapes", "directory", folder).files() == expected


def test_a_folder_source_reads_nothing_that_it_does_not_list(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")

    with pytest.raises(ModelLoadError, match=r"has no file '\.\./secret'"):
        FolderSource("shapes", "directory", folder).read("../secret")


def test_code_of_the_repo_is_named(folder: Path) -> None:
    change_index(folder, _class_name=["my_pipeline", "MyPipeline"], vae=["my_vae", "MyVae"])
    (folder / "my_pipeline.py").write_text("", encoding="utf-8")
    (folder / "vae/my_vae.py").write_text("", encoding="utf-8")

    model = describe(folder)

    assert model.pipeline_class == "MyPipeline"
    assert model.custom_code == ("my_pipeline.py", "vae/my_vae.py")
