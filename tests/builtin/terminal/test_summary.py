from typing import Any

import pytest

from sglang_core import OutputSaved
from sglang_plugins_builtin.terminal.summary import may_style, output_line, run_line

IMAGE = {"seed": 7, "kind": "image", "width": 1024, "height": 1024, "num_frames": 1, "seconds": 4.0}
VIDEO = {"seed": 0, "kind": "video", "width": 832, "height": 480, "num_frames": 81, "seconds": 120.0}


@pytest.mark.parametrize(
    ("details", "line"),
    [
        (IMAGE, "a.png  1024x1024  seed 7  4.0 s  0.262 MP/s"),
        (VIDEO, "a.png  832x480  81 frames  seed 0  2:00  0.675 frames/s"),
        ({**VIDEO, "num_frames": 1}, "a.png  832x480  1 frame  seed 0  2:00  0.008 frames/s"),
        ({"seed": 7}, "a.png  seed 7  9.0 s"),
        ({}, "a.png  9.0 s"),
        ({**IMAGE, "seconds": None, "width": "wide"}, "a.png  seed 7  9.0 s"),
        ({**IMAGE, "seconds": 0.01}, "a.png  1024x1024  seed 7  0.0 s  105 MP/s"),
    ],
    ids=["image", "video", "one frame", "seed only", "nothing", "odd values", "fast"],
)
def test_line_of_an_output(details: dict[str, Any], line: str) -> None:
    event = OutputSaved(run_id="a", path="a.png", index=0, details=details)

    assert output_line(event, elapsed_s=9.0) == line


def test_styled_line_sets_off_the_path() -> None:
    event = OutputSaved(run_id="a", path="a.png", index=0)

    assert output_line(event, 1.0, is_styled=True) == "\x1b[1ma.png\x1b[0m  1.0 s"


def test_run_line_speaks_only_when_the_output_does_not() -> None:
    assert [run_line(number, 5.0) for number in (0, 1, 4)] == [
        "no outputs saved in 5.0 s",
        None,
        "4 outputs saved in 5.0 s",
    ]


@pytest.mark.parametrize(
    ("environ", "styled"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_only_a_capable_terminal_without_no_color_is_styled(
    environ: dict[str, str], styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TERM", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert may_style(is_terminal=True) is styled
    assert not may_style(is_terminal=False)
