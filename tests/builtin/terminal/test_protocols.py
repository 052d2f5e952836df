"""Terminals are recognised by their environment or by their answer."""

import os
import pty
import sys
import threading

import pytest

from sglang_plugins_builtin.terminal.protocols import ask_sixel, detect_protocol


def refuse() -> bool:
    raise AssertionError("the environment tells enough")


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "WEZTERM_PANE": "0"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "mintty"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
    ],
)
def test_environment_tells_the_protocol(environ: dict[str, str], protocol: str) -> None:
    assert detect_protocol(environ, refuse) == protocol


@pytest.mark.parametrize(
    "environ",
    [
        {"TERM": "xterm-256color"},
        {"TERM": "xterm-256color", "KONSOLE_VERSION": "200401"},
        {"TERM": "tmux-256color", "TMUX": "/tmp/tmux", "KITTY_WINDOW_ID": "1"},
        {"TERM": "screen", "LC_TERMINAL": "iTerm2"},
        {},
    ],
    ids=["xterm", "old Konsole", "kitty behind tmux", "iTerm2 behind screen", "nothing"],
)
@pytest.mark.parametrize("has_sixel", [True, False])
def test_terminal_is_asked_where_the_environment_is_silent(environ: dict[str, str], has_sixel: bool) -> None:
    assert detect_protocol(environ, lambda: has_sixel) == ("sixel" if has_sixel else None)


def ask_terminal(answer: bytes, timeout_s: float) -> tuple[bool, bytes]:
    """Ask a terminal that answers ``answer``, from a child that the terminal belongs to."""
    child, fd = pty.fork()
    if child == 0:
        os._exit(10 + ask_sixel(0, 1, timeout_s))
    question = os.read(fd, 64)
    os.write(fd, answer)
    drain = threading.Thread(target=_drain, args=(fd,), daemon=True)
    drain.start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code == 11, question


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 64):
            pass
    except OSError:
        return


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a POSIX thing")
@pytest.mark.parametrize(
    ("answer", "has_sixel"),
    [
        (b"\x1b[?63;1;2;4;6;9;15;22c", True),
        (b"\x1b[?62;22c", False),
        (b"\x1b[?6c", False),
        (b"\x1b[?64;1;24c", False),
        (b"typed ahead\x1b[?62;4c", True),
    ],
)
def test_answer_of_the_terminal_decides(answer: bytes, has_sixel: bool) -> None:
    assert ask_terminal(answer, 20.0) == (has_sixel, b"\x1b[c")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a POSIX thing")
def test_silent_terminal_has_no_sixel() -> None:
    assert ask_terminal(b"", 0.05) == (False, b"\x1b[c")


def test_pipe_is_not_asked() -> None:
    reader, writer = os.pipe()

    assert not ask_sixel(reader, writer)

    os.close(writer)
    assert os.read(reader, 64) == b""
    os.close(reader)
