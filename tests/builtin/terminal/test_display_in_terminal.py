"""The progress display on a real pseudo-terminal, its screen read by a terminal emulator."""

import base64
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest
from http_process import wait_for
from PIL import Image

SCRIPT = Path(__file__).with_name("recorded_runs.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a POSIX thing")
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


class Terminal:
    """A program on a pseudo-terminal, with everything it wrote and the screen that makes."""

    def __init__(self, *words: str, columns: int = 80, **environ: str) -> None:
        self.written = b""
        self.screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self.screen)
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        hidden = {"NO_COLOR", "TERM", "COLUMNS", "LINES", "FORCE_COLOR", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX"}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *words],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**kept, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **environ},
            start_new_session=True,
        )
        os.close(inner)

    def read(self, timeout_s: float = 60.0) -> bool:
        """Read what is there; say whether the program can still write."""
        assert select.select([self._fd], [], [], timeout_s)[0], f"nothing came; the screen is {self.lines}"
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.written += piece
        self._stream.feed(piece)
        return bool(piece)

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not any(text in line for line in self.lines):
            assert time.monotonic() < deadline, f"{text!r} never came; the screen is {self.lines}"
            assert self.read(), f"the program ended without {text!r}; the screen is {self.lines}"

    def wait_until(self, is_so: Callable[[list[str]], bool], timeout_s: float = 60.0) -> list[str]:
        """Read until the screen is as it should be; a piece may end in the middle of a redrawing."""
        deadline = time.monotonic() + timeout_s
        while not is_so(self.lines):
            assert time.monotonic() < deadline, f"the screen stays {self.lines}"
            assert self.read(), f"the program ended with the screen {self.lines}"
        return self.lines

    def finish(self) -> int:
        while self.read():
            pass
        os.close(self._fd)
        return self.process.wait(60)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    @property
    def lines(self) -> list[str]:
        """The screen without empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]


def test_completed_run_leaves_only_the_line_of_its_output() -> None:
    terminal = Terminal("completed")

    assert terminal.finish() == 0
    assert terminal.lines == ["outputs/a.png  512x512  seed 7  2.0 s  0.131 MP/s"]
    assert HIDE_CURSOR in terminal.written
    assert not terminal.screen.cursor.hidden


def test_running_stage_shows_bytes_speed_and_the_finished_stages() -> None:
    terminal = Terminal("halted", columns=100)

    terminal.wait_for("download")
    terminal.wait_for("1.0 GB/4.0 GB")
    above = ["WARNING: slow mirror", "words of a library"]  # above the display, whole
    terminal.wait_until(lambda lines: lines[:2] == above and any("load 0.5 s" in line for line in lines))
    terminal.type("\n")
    terminal.finish()


def test_process_that_ends_without_telling_gives_the_cursor_back() -> None:
    terminal = Terminal("halted")

    terminal.wait_for("download")
    terminal.type("\n")
    terminal.finish()

    assert not terminal.screen.cursor.hidden
    assert not any("download" in line for line in terminal.lines)


def test_failure_in_the_middle_leaves_only_its_message() -> None:
    terminal = Terminal("failed")

    assert terminal.finish() == 0
    assert terminal.lines == ["sglang: the device ran out of memory"]
    assert not terminal.screen.cursor.hidden


def test_ctrl_c_takes_the_display_away(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    terminal = Terminal("interrupted", MARK=str(mark))

    terminal.wait_for("denoise")
    wait_for(mark.exists, "the stage")  # it is on the screen before the event has been told to its end
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.finish() == 130
    assert terminal.lines == []
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_display_fits_the_width_of_the_terminal(columns: int) -> None:
    terminal = Terminal("halted", columns=columns)

    terminal.wait_for("download")
    terminal.wait_for("words of a libr")
    # "load 0.5 s" and "download ...": neither is broken into two, nor drawn twice
    rows = terminal.wait_until(lambda lines: sum("load" in line for line in lines) == 2)
    terminal.type("\n")
    terminal.finish()

    assert max(len(row) for row in rows) <= columns


def test_no_color_draws_without_colours() -> None:
    terminal = Terminal("halted", NO_COLOR="1")

    terminal.wait_for("download")
    terminal.type("\n")
    terminal.finish()

    colours = [code for code in (b"\x1b[3%d" % digit for digit in range(10)) if code in terminal.written]
    assert not [code for code in colours if code != b"\x1b[3m"]


def test_dumb_terminal_gets_lines_without_escapes() -> None:
    terminal = Terminal("completed", TERM="dumb")

    terminal.finish()

    assert b"\x1b" not in terminal.written
    assert terminal.lines[:2] == ["load: 3 components in 0.5 s", "denoise: 20 steps in 3.2 s"]


def test_quiet_writes_nothing_on_a_terminal() -> None:
    terminal = Terminal("completed", "quiet")

    terminal.finish()

    assert terminal.written == b""


def test_ascii_terminal_gets_ascii() -> None:
    terminal = Terminal("halted", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    terminal.wait_for("download")
    terminal.type("\n")
    terminal.finish()

    assert terminal.written.isascii()


def test_show_draws_the_picture_under_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)

    terminal = Terminal("completed", "show", str(path), TERM="xterm-kitty", columns=200)
    terminal.finish()

    line, _, picture = terminal.written.partition(b"MP/s")
    assert str(path).encode() in line
    assert b"\x1b_Ga=T,f=100,q=2,m=0;" + base64.b64encode(path.read_bytes())[:20] in picture


def test_show_in_a_terminal_without_pictures_names_those_with() -> None:
    terminal = Terminal("completed", "show", columns=200)

    terminal.wait_for("kitty, Ghostty, Konsole")
    terminal.finish()

    assert terminal.lines[-1].startswith("WARNING: --show has no effect: this terminal shows no pictures; use kitty")
    assert b"\x1b[c" in terminal.written  # it was asked, and did not answer
