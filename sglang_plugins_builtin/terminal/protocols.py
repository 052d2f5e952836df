"""Which graphics protocol the terminal speaks."""

import os
import re
import select
import time
from collections.abc import Callable, Mapping
from typing import Literal

GraphicsProtocol = Literal["kitty", "iterm2", "sixel"]

#: Primary device attributes: the terminal answers with its features; 4 is sixel (https://vt100.net/docs/vt510-rm/DA1.html).
_ASK_FEATURES = b"\x1b[c"
_FEATURES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_SIXEL_TERMS = ("foot", "mlterm", "yaft", "contour")
_MIN_KONSOLE = 220400  # Konsole 22.04, the first with kitty graphics


def detect_protocol(environ: Mapping[str, str], has_sixel: Callable[[], bool]) -> GraphicsProtocol | None:
    """Return the protocol of the terminal this environment describes, or ``None`` if it can show no pictures.

    :param has_sixel: asks the terminal itself; called only when the environment does not tell.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or term.startswith(("tmux", "screen")):
        # the variables are those of the terminal around it, whose pictures do not get through
        return "sixel" if has_sixel() else None
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty" or "KITTY_WINDOW_ID" in environ:
        return "kitty"
    if environ.get("KONSOLE_VERSION", "").isdigit() and int(environ["KONSOLE_VERSION"]) >= _MIN_KONSOLE:
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if "WEZTERM_PANE" in environ:
        return "iterm2"
    if term.startswith(_SIXEL_TERMS) or term.endswith("-sixel"):
        return "sixel"
    return "sixel" if has_sixel() else None


def ask_sixel(input_fd: int, output_fd: int, timeout_s: float = 0.3) -> bool:
    """Ask the terminal whether it draws sixels; ``False`` if it does not answer in time.

    Both descriptors must be terminals, and this process in the foreground: else nothing is asked.
    """
    if not (os.isatty(input_fd) and os.isatty(output_fd)):
        return False
    try:
        import termios
        import tty
    except ImportError:  # Windows has neither
        return False
    if _is_in_background(input_fd):
        return False  # changing the terminal now would stop the process
    answer = b""
    try:
        before = termios.tcgetattr(input_fd)
        try:
            tty.setcbreak(input_fd, termios.TCSANOW)
            os.write(output_fd, _ASK_FEATURES)
            answer = _read_answer(input_fd, timeout_s)
        finally:
            termios.tcsetattr(input_fd, termios.TCSANOW, before)
    except (OSError, termios.error):  # the terminal went away
        return False
    match = _FEATURES.search(answer)
    return match is not None and b"4" in match[1].split(b";")[1:]


def _is_in_background(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # not the terminal that controls this process: there is no foreground
        return False


def _read_answer(fd: int, timeout_s: float) -> bytes:
    answer = b""
    deadline = time.monotonic() + timeout_s
    while not _FEATURES.search(answer):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
            break
        piece = os.read(fd, 256)
        if not piece:
            break
        answer += piece
    return answer
