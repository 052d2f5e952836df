import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_server import HubServer
from model_folders import write_json, write_pipeline

from sglang_core import ModelLoadError, ModelNotFoundError, ModelReference, ModelSource, describe_model
from sglang_plugins_builtin.model_sources.hub import HubResolver

REPO = "acme/shapes"
LARGE = "transformer/diffusion_pytorch_model.safetensors"
#: More values than a file that is downloaded whole to read its header: 6 MB in bf16.
LARGE_VALUES = 3_000_000


def resolve(path: str = REPO, **more: object) -> ModelSource:
    source = HubResolver().resolve(ModelReference(path=path, **more))  # type: ignore[arg-type]  # test keywords
    assert source is not None
    return source


def ignore_progress(num_bytes: int, total_bytes: int) -> None:
    """Take progress and do nothing."""


@pytest.fixture
def repo(hub: HubServer, hub_cache: Path, tmp_path: Path) -> Path:
    folder = write_pipeline(tmp_path / "repo", LARGE_VALUES)
    (folder / "README.md").write_text("about", encoding="utf-8")
    (folder / "transformer/model.onnx").write_bytes(b"another format")
    hub.add(REPO, folder)
    return folder


@pytest.mark.usefixtures("repo")
def test_description_of_a_repo_downloads_no_large_file(hub: HubServer, hub_cache: Path) -> None:
    model = describe_model(resolve())

    assert model.revision == hub.commit(REPO)
    assert model.components["transformer"].num_parameters == LARGE_VALUES + 3
    assert model.components["transformer"].dtype == "bf16"
    ranges = [request.range for request in hub.requests if request.path.startswith(f"/storage/{REPO}/{LARGE}")]
    assert ranges == ["bytes=0-262143"]
    assert sum(path.stat().st_size for path in hub_cache.rglob("*") if path.is_file()) < 100_000


@pytest.mark.usefixtures("repo")
def test_header_is_read_from_a_server_that_ignores_ranges(hub: HubServer) -> None:
    hub.ignore_ranges = True

    assert describe_model(resolve()).components["transformer"].num_parameters == LARGE_VALUES + 3


@pytest.mark.usefixtures("hub_cache")
def test_a_header_longer_than_the_first_request_is_read_whole(hub: HubServer, tmp_path: Path) -> None:
    from model_folders import write_weights

    folder = write_pipeline(tmp_path / "repo")
    write_weights(folder / LARGE, {f"{number:04}{'x' * 200}": ("F32", [500]) for number in range(2500)})
    hub.add(REPO, folder)

    assert describe_model(resolve()).components["transformer"].num_parameters == 2500 * 500


def test_fetch_downloads_only_what_the_model_needs(hub: HubServer, repo: Path) -> None:
    source = resolve()
    model = describe_model(source)
    told: list[tuple[int, int]] = []

    folder = source.fetch(model.files, lambda now, total: told.append((now, total)))

    assert (folder / LARGE).read_bytes() == (repo / LARGE).read_bytes()
    assert not (folder / "README.md").exists()
    assert not (folder / "transformer/model.onnx").exists()
    total = sum((repo / path).stat().st_size for path in model.files)
    assert told[-1] == (total, total)
    assert [now for now, _ in told] == sorted(now for now, _ in told)
    assert {total_bytes for _, total_bytes in told} == {total}


@pytest.mark.usefixtures("repo")
def test_a_second_fetch_downloads_nothing(hub: HubServer) -> None:
    source = resolve()
    paths = describe_model(source).files
    source.fetch(paths, ignore_progress)
    hub.requests.clear()

    again = resolve()
    again.fetch(describe_model(again).files, ignore_progress)

    assert hub.downloads() == []


def test_a_connection_that_breaks_is_resumed_where_it_broke(hub: HubServer, repo: Path) -> None:
    source = resolve()
    paths = describe_model(source).files
    hub.cut_after[LARGE] = 1_500_000
    hub.requests.clear()
    told: list[int] = []

    folder = source.fetch(paths, lambda now, total: told.append(now))

    assert (folder / LARGE).read_bytes() == (repo / LARGE).read_bytes()
    ranges = [request.range for request in hub.requests if request.path.endswith(LARGE) and request.method == "GET"]
    assert ranges == [None, "bytes=1048576-"]
    assert max(told) == told[-1] == sum((repo / path).stat().st_size for path in paths)


@pytest.mark.usefixtures("repo")
def test_fetch_stops_when_progress_raises_and_keeps_finished_files(hub: HubServer, hub_cache: Path) -> None:
    source = resolve()
    paths = describe_model(source).files
    hub.hold[LARGE] = threading.Event()

    def cancel(num_bytes: int, total_bytes: int) -> None:
        if hub.is_held.is_set():
            hub.hold[LARGE].set()  # the rest arrives, but nobody waits for it
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.fetch(paths, cancel)

    assert list(hub_cache.rglob("*.incomplete")) == []
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("download")]
    hub.hold.clear()
    assert (source.fetch(paths, ignore_progress) / LARGE).is_file()


@pytest.mark.usefixtures("repo")
def test_a_downloaded_model_works_offline(hub: HubServer) -> None:
    source = resolve()
    source.fetch(describe_model(source).files, ignore_progress)
    hub.requests.clear()

    offline = resolve(offline=True)
    model = describe_model(offline)
    folder = offline.fetch(model.files, ignore_progress)

    assert (folder / LARGE).is_file()
    assert model.revision == source.revision
    assert hub.requests == []


@pytest.mark.usefixtures("repo")
def test_an_incomplete_model_offline_names_the_missing_files() -> None:
    describe_model(resolve())

    with pytest.raises(ModelNotFoundError) as caught:
        describe_model(resolve(offline=True))

    assert LARGE in caught.value.problem
    assert "the run is offline" in caught.value.problem
    assert "without --offline" in caught.value.remedy


@pytest.mark.usefixtures("repo")
def test_a_model_that_was_never_downloaded_offline_says_so() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(offline=True)

    assert f"{REPO} is not in the cache" in caught.value.problem
    assert "run once without --offline" in caught.value.remedy


@pytest.mark.usefixtures("repo")
def test_a_hub_that_fails_is_replaced_by_the_downloaded_copy_with_a_warning(
    hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = resolve()
    source.fetch(describe_model(source).files, ignore_progress)
    hub.status = 503

    with caplog.at_level(logging.WARNING):
        model = describe_model(resolve())

    assert model.revision == source.revision
    assert f"using the downloaded copy of {REPO}" in caplog.text


def refuse_token(hub: HubServer) -> None:
    hub.required_token = "hf_right"


def gate(hub: HubServer) -> None:
    hub.gated.add(REPO)


def remove(hub: HubServer) -> None:
    hub.repos.clear()


def limit(hub: HubServer) -> None:
    hub.status = 429


def break_down(hub: HubServer) -> None:
    hub.status = 500


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        pytest.param(remove, "the hub has no model acme/shapes", "check the spelling", id="missing repo"),
        pytest.param(gate, "acme/shapes is gated", "accept them on http", id="gated"),
        pytest.param(refuse_token, "or it is private", "HF_TOKEN", id="wrong token"),
        pytest.param(limit, "too many requests", "wait a little", id="rate limit"),
        pytest.param(break_down, "fails with status 500", "--offline", id="server error"),
    ],
)
def test_refusals_of_the_hub_become_one_sentence(hub: HubServer, change: object, problem: str, remedy: str) -> None:
    change(hub)  # type: ignore[operator]  # one of the functions above

    with pytest.raises(ModelNotFoundError) as caught:
        resolve(token="hf_secret")

    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.problem
    assert "hf_secret" not in str(caught.value)


@pytest.mark.usefixtures("repo")
def test_an_unknown_revision_is_named() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(revision="v9")

    assert caught.value.problem == "acme/shapes has no revision v9"


@pytest.mark.usefixtures("repo")
def test_a_commit_is_a_revision(hub: HubServer) -> None:
    assert resolve(revision=hub.commit(REPO)).revision == hub.commit(REPO)


@pytest.mark.usefixtures("repo")
def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: HubServer) -> None:
    hub.required_token = "hf_right"
    source = resolve(token="hf_right")
    source.fetch(describe_model(source).files, ignore_progress)

    storage = [request.authorization for request in hub.requests if request.path.startswith("/storage/")]
    assert storage
    assert set(storage) == {None}


@pytest.mark.usefixtures("repo")
def test_a_hub_that_does_not_answer_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(ModelNotFoundError) as caught:
        resolve()

    assert "the hub http://127.0.0.1:1 does not answer" in caught.value.problem
    assert "--offline" in caught.value.remedy


@pytest.mark.usefixtures("repo")
def test_a_full_disk_is_refused_before_the_first_byte(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    source = resolve()
    paths = describe_model(source).files
    hub.requests.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))

    with pytest.raises(ModelLoadError) as caught:
        source.fetch(paths, ignore_progress)

    assert "acme/shapes does not fit on the disk" in caught.value.problem
    assert "HF_HOME" in caught.value.remedy
    assert hub.requests == []


def test_recommended_values_come_from_the_repo(hub: HubServer, repo: Path) -> None:
    write_json(repo / "sglang.json", {"width": 128, "num_inference_steps": 12, "about": "a note"})

    assert resolve().sampling_defaults() == {"width": 128, "num_inference_steps": 12}


def test_recommended_values_of_a_well_known_repo_come_from_the_table(hub: HubServer, repo: Path) -> None:
    hub.add("Qwen/Qwen-Image", repo)

    assert resolve("Qwen/Qwen-Image").sampling_defaults()["num_inference_steps"] == 50


@pytest.mark.usefixtures("hub_cache")
def test_a_repo_without_a_pipeline_says_what_it_holds(hub: HubServer, tmp_path: Path) -> None:
    write_json(tmp_path / "repo/config.json", {})
    hub.add(REPO, tmp_path / "repo")

    with pytest.raises(ModelLoadError, match=r"acme/shapes has no model_index\.json.*it has config\.json"):
        describe_model(resolve())


@pytest.mark.parametrize("path", ["shapes", "a/b/c", "demo", "acme/sha pes", "https://hub/acme/shapes"])
def test_references_of_other_kinds_are_declined(path: str) -> None:
    assert HubResolver().resolve(ModelReference(path=path)) is None


def test_endpoint_cache_and_token_come_from_the_environment(hub: HubServer, tmp_path: Path) -> None:
    hub.add(REPO, write_pipeline(tmp_path / "repo"))
    hub.required_token = "hf_right"
    script = (
        "import json, sys; from sglang_core import ModelReference, describe_model;"
        "from sglang_plugins_builtin.model_sources.hub import HubResolver;"
        "source = HubResolver().resolve(ModelReference(path=sys.argv[1]));"
        "model = describe_model(source);"
        "print(json.dumps([model.revision, str(source.fetch(model.files, lambda now, total: None))]))"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_right"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)

    def run(**more: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, REPO],
            env=environment | more,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return list(json.loads(done.stdout))

    revision, folder = run()
    hub.requests.clear()
    again = run(HF_HUB_OFFLINE="1")

    assert revision == hub.commit(REPO)
    assert Path(folder).is_relative_to(tmp_path / "home")
    assert again == [revision, folder]
    assert hub.requests == []
