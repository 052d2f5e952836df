"""What a user can do wrong: one clear sentence, a remedy, the right exit code, nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest

from sglang_core.cli import main

PROMPT = ["--prompt", "a red circle on a white background"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A writable copy of the embedded model."""
    import sglang_plugins_builtin.demo_models as demo

    weights = Path(str(demo.__file__)).parent / "weights" / "shapes-image"
    return Path(shutil.copytree(weights, tmp_path / "model"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run ``sglang generate``, and return exit code and message; a traceback or a file is a failure."""
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *words])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "this should not happen" not in error
    assert "\nTry: " in error, error
    left = [path for path in Path.cwd().rglob("*") if path.suffix in {".png", ".part", ".mp4", ".jpg"}]
    assert left == []
    return int(stopped.value.code or 0), error


CASES = [
    pytest.param(["--promt", "x"], 2, ["--promt", "--prompt"], id="unknown flag"),
    pytest.param([*PROMPT, "--widht=64"], 2, ["--widht", "--width"], id="unknown flag with a value"),
    pytest.param([*PROMPT, "--width", "wide"], 2, ["--width", "'wide'", "whole number"], id="wrong type"),
    pytest.param([*PROMPT, "--width", "64.5"], 2, ["--width", "64.5"], id="fraction where a whole number belongs"),
    pytest.param([*PROMPT, "--width"], 2, ["--width needs a value"], id="flag without its value"),
    pytest.param([*PROMPT, "--seed", "-1"], 2, ["seed", "-1"], id="negative seed"),
    pytest.param([*PROMPT, "--seed", "1", "2", "3", "--num-outputs", "2"], 2, ["3 seeds"], id="seeds do not fit"),
    pytest.param([*PROMPT, "--guidance-scale", "nan"], 2, ["--guidance-scale", "nan"], id="not a number"),
    pytest.param([*PROMPT, "--precision", "fp8"], 2, ["--precision", "fp16, bf16, fp32"], id="wrong choice"),
    pytest.param([*PROMPT, "--backend", "diffuser"], 2, ["'diffuser'", "'diffusers'"], id="unknown backend"),
    pytest.param([*PROMPT, "--num-inference-steps", "0"], 2, ["num_inference_steps", "0"], id="no steps"),
    pytest.param([*PROMPT, "--output-compression", "101"], 2, ["output_compression", "101"], id="quality over 100"),
    pytest.param([], 2, ["no prompt", "--prompt"], id="no prompt"),
    pytest.param(["--prompt", ""], 2, ["--prompt", "empty"], id="empty prompt"),
    pytest.param(["--prompt", "  \t "], 2, ["--prompt", "empty"], id="blank prompt"),
    pytest.param(["--prompt", "x" * 100_000], 2, ["100,000 characters", "10,000"], id="endless prompt"),
    pytest.param(["--prompt-path", "absent.txt"], 2, ["absent.txt", "no such file"], id="missing prompt file"),
    pytest.param([*PROMPT, "--prompt-path", "x.txt"], 2, ["both"], id="prompt and prompt file"),
    pytest.param([*PROMPT, "--config", "absent.yaml"], 2, ["absent.yaml", "no such file"], id="missing config file"),
    pytest.param([*PROMPT, "--config", "settings.toml"], 2, [".toml", ".yaml"], id="unknown config format"),
    pytest.param(["--from-file", "absent.png"], 2, ["absent.png", "no such file"], id="missing receipt"),
    pytest.param([*PROMPT, "--image-path", "absent.png"], 2, ["--image-path"], id="image for a model without one"),
    pytest.param([*PROMPT, "--num-frames", "17"], 2, ["--num-frames", "clip"], id="frames from an image model"),
    pytest.param([*PROMPT, "--width", "100"], 2, ["multiples of 16", "96"], id="size off the grid"),
    pytest.param([*PROMPT, "--output-file-name", "a.mp4"], 2, ["mp4", "png"], id="a clip's name for an image"),
    pytest.param([*PROMPT, "--output-file-name", "a.tiff"], 2, ["tiff"], id="format that nobody writes"),
    pytest.param([*PROMPT, "--diffusers-kwargs", "{"], 2, ["--diffusers-kwargs", "JSON"], id="broken JSON"),
    pytest.param(
        [*PROMPT, "--diffusers-kwargs", '{"guidence": 1}'], 2, ["guidence", "guidance_scale"], id="unknown argument"
    ),
    pytest.param([*PROMPT, "--model-path", "demo/shapes"], 4, ["demo/shapes", "shapes-image"], id="unknown demo"),
    pytest.param([*PROMPT, "--model-path", "./absent"], 4, ["absent"], id="missing model folder"),
    pytest.param([*PROMPT, "--model-path", "a/b/c"], 4, ["a/b/c"], id="not a model reference"),
    pytest.param([*PROMPT, "--model-path", ""], 4, ["model"], id="empty model path"),
    pytest.param([*PROMPT, "--revision", "main"], 4, ["main", "--revision"], id="revision of an embedded model"),
    pytest.param([*PROMPT, "--component-precisions", "unet=fp16"], 2, ["unet", "transformer"], id="no such component"),
    pytest.param([*PROMPT, "--cpu-offload-components", "vea"], 2, ["vea", "vae"], id="offload of no component"),
    pytest.param([*PROMPT, "--disable-plugin", "medai"], 2, ["medai", "media"], id="unknown plugin"),
    pytest.param([*PROMPT, "--output-path", "/proc/nothing"], 7, ["/proc/nothing"], id="no permission"),
    pytest.param([*PROMPT, "--output-path", "/dev/null/x"], 7, ["/dev/null"], id="a file where a folder belongs"),
    pytest.param([*PROMPT, "--output-path", "x" * 5000], 7, ["too long"], id="endless path"),
    pytest.param([*PROMPT, "--timeout-s", "0"], 2, ["timeout_s", "0"], id="no time"),
    pytest.param(["stray", *PROMPT], 2, ["stray"], id="stray word"),
]


@pytest.mark.parametrize(("words", "code", "parts"), CASES)
def test_bad_input_ends_in_one_sentence(
    words: list[str], code: int, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, error = refused(capsys, *words)

    assert found == code, error
    for part in parts:
        assert part in error
    assert len(error.strip().splitlines()) <= 3, error


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_absent_device_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sglang_core.devices import has_device

    if has_device(device):
        pytest.skip(f"this machine has {device}")

    code, error = refused(capsys, *PROMPT, "--device", device)

    assert (code, "--device cpu" in error) == (5, True), error


def test_folder_without_an_index_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model_index.json").unlink()

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert (code, "model_index.json" in error) == (4, True), error


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"_class_name": 3}', '{"vae": ["diffusers"]}', "\x00"])
def test_broken_index_is_refused(text: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model_index.json").write_text(text)

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert (code, "model_index.json" in error) == (4, True), error


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights_are_refused(kept: int, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = next((model / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:kept])

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert code == 4, error
    assert weights.name in error
    assert "truncated or damaged" in error


def test_weights_of_another_shape_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = model / "transformer" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_attention_heads": values["num_attention_heads"] * 2}))

    code, error = refused(capsys, *PROMPT, "--model-path", str(model), "--quiet")

    assert (code, "transformer" in error) == (4, True), error


def test_missing_component_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(model / "vae")

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert (code, "vae" in error) == (4, True), error


def test_unknown_pipeline_class_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = model / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "NobodysPipeline"}))

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert (code, "NobodysPipeline" in error) == (5, True), error


def test_code_of_the_model_is_not_run_without_trust(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = model / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": ["pipeline", "Mine"]}))
    (model / "pipeline.py").write_text("open('ran', 'w')\n")

    code, error = refused(capsys, *PROMPT, "--model-path", str(model))

    assert (code, "--trust-remote-code" in error) == (5, True), error
    assert not Path("ran").exists()


def test_unknown_config_key_names_file_line_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("prompt: a red circle\nheigth: 64\n")

    code, error = refused(capsys, "--config", str(config))

    assert (code, f"{config}:2:1" in error, "'height'" in error) == (2, True, True), error


def test_output_that_already_is_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs/a.png").mkdir(parents=True)

    with pytest.raises(SystemExit) as stopped:
        main(["generate", *PROMPT, "--output-file-name", "a.png", "--quiet"])

    assert stopped.value.code == 7
    assert "folder" in capsys.readouterr().err
    assert [path.name for path in Path("outputs").iterdir()] == ["a.png"]
