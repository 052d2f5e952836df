"""The names of a run's files: what is kept, what is refused, and that none leaves its folder."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sglang_core import ConfigError, GenerationRequest, MediaKind, OutputOptions, OutputPlan, UnavailableError
from sglang_core.output_names import MAX_NAME_LENGTH, plan_outputs, resolve_compression, sanitise_name
from sglang_plugins_builtin.media.encoders import GifEncoder, JpegEncoder, Mp4Encoder, PngEncoder, WebpEncoder
from sglang_plugins_builtin.media.libraries import Library

ENCODERS = [Mp4Encoder(), GifEncoder(), WebpEncoder(), JpegEncoder(), PngEncoder()]
STARTED = datetime(2031, 4, 5, 6, 7, 8)


def plan(
    kind: MediaKind = "image", prompts: tuple[str, ...] = ("a red circle",), per_prompt: int = 1, **options: Any
) -> OutputPlan:
    requests = [GenerationRequest(prompt=prompt, seed=42 + i) for prompt in prompts for i in range(per_prompt)]
    return plan_outputs(
        OutputOptions(**options), kind, requests, ENCODERS, outputs_per_prompt=per_prompt, started=STARTED
    )


def file_name(name: str, kind: MediaKind = "image") -> str:
    return plan(kind, output_file_name=name).file_names[0]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("cat.png", "cat.png"),
        ("cat", "cat.png"),
        ("cat.PNG", "cat.PNG"),
        ("cat.jpeg", "cat.jpeg"),
        ("cat.gif", "cat.gif"),
        ("a  b--c.png", "a_b--c.png"),
        ("v1.5 portrait", "v1.5_portrait.png"),
        ("Ünïcode café.webp", "Unicode_cafe.webp"),
        ("日本語.jpg", "output.jpg"),
        ("\ufb01ne.\uff50\uff4e\uff47", "fine.png"),
        ("___.a.___", "a.png"),
        (".hidden.png", "hidden.png"),
        (".png", "output.png"),
        ("   ", "output.png"),
        ("cat.png. ", "cat.png"),
        ("../../etc/passwd", "etc_passwd.png"),
        ("/etc/cron.d/job.png", "etc_cron.d_job.png"),
        ("..\\..\\boot.png", "boot.png"),
        ("C:\\Windows\\x.png", "C_Windows_x.png"),
        ("a\0b.png", "a_b.png"),
        ("a\nb\x1b[31m.png", "a_b_31m.png"),
        ("NUL", "output_NUL.png"),
        ("con.png", "output_con.png"),
        ("lpt1.tar.jpg", "output_lpt1.tar.jpg"),
        ("console.png", "console.png"),
        ("$(rm -rf ~).png", "rm_-rf.png"),
        ("\ud83d.png", "output.png"),
    ],
)
def test_a_given_name_becomes_one_portable_name(given: str, kept: str) -> None:
    assert file_name(given) == kept


@pytest.mark.parametrize("given", ["my cat.png", "café.png", "日本語", "x" * 200, "a/b.png", "NUL.png"])
@pytest.mark.parametrize("per_prompt", [1, 2])
def test_a_changed_name_is_told(given: str, per_prompt: int) -> None:
    made = plan(per_prompt=per_prompt, output_file_name=given)

    assert f"--output-file-name {given!r} is saved as {made.file_names[0]!r}" in made.notes[0]


@pytest.mark.parametrize("given", ["cat", "cat.png", "cat.PNG", "v1.5", "a-b_c.d.webp"])
@pytest.mark.parametrize("per_prompt", [1, 2])
def test_a_kept_name_needs_no_note(given: str, per_prompt: int) -> None:
    assert plan(per_prompt=per_prompt, output_file_name=given).notes == ()


@pytest.mark.parametrize("given", ["x" * 400 + ".webp", "." * 400 + ".webp", ("é" * 149 + "..") + ".webp"])
def test_a_long_name_is_cut_but_keeps_its_extension(given: str) -> None:
    name = file_name(given)

    assert name.endswith(".webp")
    assert 0 < len(Path(name).stem) < len(name) <= MAX_NAME_LENGTH


def test_a_long_name_keeps_the_numbers_that_tell_outputs_apart() -> None:
    names = plan(per_prompt=12, output_file_name="x" * 400).file_names

    assert len(set(names)) == 12
    assert names[11].endswith("x_11.png")
    assert max(map(len, names)) == MAX_NAME_LENGTH


@pytest.mark.parametrize("name", ["..", "../x.png", "/abs/x.png", "a/../../x.png", "\0", "~root/x.png", "..%2fx.png"])
@pytest.mark.parametrize("per_prompt", [1, 3])
def test_no_file_name_leads_out_of_the_output_folder(name: str, per_prompt: int, tmp_path: Path) -> None:
    made = plan(per_prompt=per_prompt, output_path=str(tmp_path), output_file_name=name)

    assert {path.resolve().parent for path in made.paths} == {tmp_path.resolve()}


def test_no_prompt_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    made = plan(prompts=("../../evil", "/etc/passwd", "..", "\0"), output_path=str(tmp_path))

    assert {path.resolve().parent for path in made.paths} == {tmp_path.resolve()}
    assert len(set(made.paths)) == 4


def test_without_a_name_prompt_time_and_request_make_one() -> None:
    name = plan(prompts=("A red circle, please! " * 20,)).file_names[0]
    other_seed = plan_outputs(
        OutputOptions(), "image", [GenerationRequest(prompt="a", seed=1)], ENCODERS, started=STARTED
    ).file_names[0]
    same_but_seed = plan_outputs(
        OutputOptions(), "image", [GenerationRequest(prompt="a", seed=2)], ENCODERS, started=STARTED
    ).file_names[0]

    assert name.startswith("A_red_circle_please_A_red_circle")
    assert "_20310405-060708_" in name
    assert name.endswith(".png")
    assert len(name.split("_20310405-060708_")[0]) <= 100
    assert len(name.split("_")[-1]) == len("01234567.png")
    assert other_seed != same_but_seed


def test_an_empty_prompt_is_called_output() -> None:
    assert plan(prompts=("",)).file_names[0].startswith("output_20310405-060708_")


def test_several_outputs_are_numbered_before_the_extension() -> None:
    assert plan(per_prompt=3, output_file_name="cat.jpg").file_names == ("cat_0.jpg", "cat_1.jpg", "cat_2.jpg")


def test_several_prompts_with_one_name_are_numbered_too() -> None:
    made = plan(prompts=("a", "b"), per_prompt=2, output_file_name="cat.png")

    assert made.file_names == ("cat_0.png", "cat_1.png", "cat_2.png", "cat_3.png")


def test_the_same_prompt_twice_gives_two_names() -> None:
    names = plan(prompts=("Same", "same", "Same")).file_names

    assert len({name.lower() for name in names}) == 3


def test_output_file_path_is_folder_and_name_and_wins() -> None:
    made = plan(output_file_path="some/where/my cat.jpg", output_path="ignored", output_file_name="ignored.gif")

    assert made.paths == (Path("some/where/my_cat.jpg"),)
    assert made.encoder.value == "jpeg"
    assert "'my cat.jpg' is saved as 'my_cat.jpg'" in made.notes[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("cat.png", "cat.png"), ("/abs/cat.png", "/abs/cat.png"), ("../up/cat", "../up/cat.png")],
)
def test_output_file_path_may_point_anywhere(given: str, expected: str) -> None:
    assert plan(output_file_path=given).paths == (Path(expected),)


def test_a_home_folder_in_a_configuration_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    assert plan(output_path="~/pictures", output_file_name="x.png").paths == (Path("/home/ada/pictures/x.png"),)


@pytest.mark.parametrize("given", ["results/", ".", "..", "a/.."])
def test_output_file_path_without_a_name_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"names a folder, not a file") as caught:
        plan(output_file_path=given)

    assert "--output-path" in caught.value.remedy


def test_a_nul_in_the_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL character"):
        plan(output_path="a\0b")


@pytest.mark.parametrize("options", [{"save_output": False}, {"output_path": ""}])
def test_nothing_is_planned_when_nothing_is_saved(options: dict[str, Any]) -> None:
    made = plan(**options)

    assert made.directory is None
    assert made.paths == ()
    assert made.encoder.reason == "nothing is saved"


@pytest.mark.parametrize(
    ("name", "kind", "format_name"),
    [("a.png", "image", "png"), ("a.JPG", "image", "jpeg"), ("a.webp", "video", "webp"), ("a.Mp4", "video", "mp4")],
)
def test_the_extension_chooses_the_encoder(name: str, kind: MediaKind, format_name: str) -> None:
    made = plan(kind, output_file_name=name)

    assert made.encoder.value == format_name
    assert not made.encoder.is_automatic
    assert made.extension == Path(name).suffix[1:].lower()


@pytest.mark.parametrize(("kind", "extension"), [("image", "png"), ("video", "mp4")])
def test_without_an_extension_the_kind_chooses(kind: MediaKind, extension: str) -> None:
    made = plan(kind, output_file_name="take.2")

    assert made.file_names == (f"take.2.{extension}",)
    assert made.encoder.is_automatic
    assert made.notes == ()


@pytest.mark.parametrize(
    ("name", "kind", "problem", "remedy"),
    [
        ("clip.png", "video", "a .png file cannot hold a clip", "end the name with one of: .mp4, .webp, .gif"),
        ("clip.JPG", "video", "a .JPG file cannot hold a clip", "end the name with one of: .mp4, .webp, .gif"),
        ("cat.mp4", "image", "a .mp4 file cannot hold an image", "end the name with one of: .png, .jpg, .webp, .gif"),
        ("cat.tiff", "image", "no installed encoder writes .tiff files", "one of: .png, .jpg, .webp, .gif"),
        ("clip.webm", "video", "no installed encoder writes .webm files", "one of: .mp4, .webp, .gif"),
    ],
)
def test_a_format_that_cannot_hold_the_result_is_refused(name: str, kind: MediaKind, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(kind, output_file_name=name)

    assert problem in caught.value.problem
    assert f"--output-file-name {name!r}" in caught.value.problem
    assert remedy in caught.value.remedy


def test_an_encoder_that_cannot_work_is_refused_with_its_remedy() -> None:
    class AbsentEncoder(Mp4Encoder):
        library = Library(module="not_installed_xyz", distribution="x", title="PyXyz", remedy="pip install xyz")

    with pytest.raises(UnavailableError) as caught:
        plan_outputs(OutputOptions(), "video", [GenerationRequest(prompt="a")], [AbsentEncoder()], started=STARTED)

    assert caught.value.problem == "mp4 files cannot be written: PyXyz is not installed"
    assert caught.value.remedy == "pip install xyz"


def test_no_encoder_at_all_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no installed encoder writes a clip"):
        plan_outputs(OutputOptions(), "video", [GenerationRequest(prompt="a")], [PngEncoder()], started=STARTED)


@pytest.mark.parametrize(
    ("quality", "expected"), [("maximum", 100), ("high", 90), ("medium", 55), ("low", 35), ("default", None)]
)
def test_a_preset_stands_for_a_number_and_a_number_wins(quality: Any, expected: int | None) -> None:
    assert resolve_compression(OutputOptions(output_quality=quality)) == expected
    assert resolve_compression(OutputOptions(output_quality=quality, output_compression=0)) == 0


def test_sanitising_twice_changes_nothing() -> None:
    for name in ("a b", "..", "NUL", "日本", "x" * 300, "a__b._", "con.txt"):
        assert sanitise_name(sanitise_name(name)) == sanitise_name(name)
