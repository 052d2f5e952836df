from pathlib import Path

import pytest
from model_folders import write_json, write_pipeline

from sglang_core import ConfigError, ModelLoadError, ModelNotFoundError, ModelReference, ModelSource, describe_model
from sglang_plugins_builtin.model_sources.directory import DirectoryResolver


def resolve(path: object, revision: str | None = None) -> ModelSource | None:
    return DirectoryResolver().resolve(ModelReference(path=str(path), revision=revision))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path / "shapes")


def test_absolute_relative_and_home_paths_lead_to_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))

    for path in (folder, "shapes", "./shapes", "~/shapes", "shapes/"):
        source = resolve(path)
        assert source is not None
        assert source.fetch(["model_index.json"], lambda now, total: None) == folder.resolve()


def test_a_path_that_is_not_there_names_the_nearest_folder(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(folder.parent / "shape")

    assert caught.value.problem == f"there is no model folder at {folder.parent / 'shape'}"
    assert caught.value.remedy == f"use {folder}"


def test_a_path_through_a_missing_folder_names_the_missing_part(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(tmp_path / "a/b/c")

    assert caught.value.remedy == f"check the path: {tmp_path / 'a'} does not exist"


def test_a_single_weight_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")

    with pytest.raises(ModelLoadError) as caught:
        resolve(path)

    assert "is a single file" in caught.value.problem
    assert "folder of the whole pipeline" in caught.value.remedy


def test_the_index_file_leads_to_its_folder(folder: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        resolve(folder / "model_index.json")

    assert caught.value.remedy == f"use {folder}"


@pytest.mark.parametrize("path", ["", "  ", "./" + "x" * 100_000, "~nobody-with-this-name/model"])
def test_impossible_paths_are_refused_in_a_short_sentence(path: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(path)

    assert len(caught.value.problem) < 400


@pytest.mark.parametrize("path", ["Qwen/Qwen-Image", "demo/shapes-image", "a/b/c"])
def test_what_is_no_path_is_left_to_others(path: str) -> None:
    assert resolve(path) is None


def test_a_folder_without_index_says_what_is_there(tmp_path: Path) -> None:
    write_json(tmp_path / "vae/config.json", {})
    write_json(tmp_path / "config.json", {})
    source = resolve(tmp_path)
    assert source is not None

    with pytest.raises(ModelLoadError, match=r"has no model_index\.json.*\(it has config\.json\)"):
        describe_model(source)


def test_a_revision_does_not_apply_to_a_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--revision main does not apply to the local folder"):
        resolve(folder, revision="main")


def test_a_snapshot_in_the_cache_of_the_hub_has_its_commit_and_its_values(tmp_path: Path) -> None:
    commit = "a" * 40
    folder = write_pipeline(tmp_path / "models--Qwen--Qwen-Image" / "snapshots" / commit)

    source = resolve(folder)

    assert source is not None
    assert source.revision == commit
    assert source.sampling_defaults()["guidance_scale"] == 4.0
