"""How the process of the command ends, when it holds what takes long to free and when it does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Stands for the real one, whose import takes seconds: what counts is that it is loaded.
WITH_TORCH = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"
#: Written by what only the interpreter's own end calls.
FINALIZED = """
import os
class Last:
    def __del__(self, write=os.write):
        write(2, b"finalized")
last = Last()
"""
RUN = "from sglang_core.cli import app, process\n"


def run_python(source: str, *words: str, **streams: Any) -> "subprocess.CompletedProcess[str]":
    streams = {"stdout": subprocess.PIPE, **streams}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", source, *words]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, env=environment, **streams)


@pytest.mark.parametrize(
    ("before", "ending"), [(WITH_TORCH, ""), ("", "finalized")], ids=["with torch", "without torch"]
)
def test_process_with_torch_ends_without_taking_the_interpreter_apart(before: str, ending: str) -> None:
    done = run_python(f"{before}{FINALIZED}{RUN}process.run()", "plugins", "list")

    assert done.returncode == 0
    assert "commands" in done.stdout
    assert done.stderr == ending


CODES = {
    "good": ("", ["--version"], 0),
    "wrong": ("", ["genrate"], 2),
    "cancelled": ("def interrupt(**_): raise KeyboardInterrupt\napp.create_plugin_manager = interrupt\n", [], 130),
}


@pytest.mark.parametrize(("before", "words", "code"), CODES.values(), ids=CODES)
def test_exit_code_is_kept(before: str, words: list[str], code: int) -> None:
    done = run_python(f"{WITH_TORCH}{FINALIZED}{RUN}{before}process.run()", *words)

    assert done.returncode == code
    assert "finalized" not in done.stderr


LEFT_OVER = """
import atexit, concurrent.futures, logging.handlers, tempfile, threading
folder = tempfile.TemporaryDirectory()
memory = logging.handlers.MemoryHandler(100, target=logging.StreamHandler())
logging.getLogger("late").addHandler(memory)
notes = open("notes.txt", "w")

def after_main(what):
    threading.main_thread().join()
    sys.stdout.write(what + chr(10))  # in one piece, whoever else writes

def main():
    sys.stdout.write(folder.name + chr(10))
    atexit.register(print, "handler")
    threading.Thread(target=after_main, args=["thread"]).start()
    counted = []
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    for _ in range(10_000):
        pool.submit(counted.append, 1)
    pool.submit(lambda: sys.stdout.write(f"future {len(counted)}" + chr(10)))
    logging.getLogger("late").warning("logged")
    notes.write("noted")
    sys.stdout.write("x" * 1_000_000 + chr(10))
    sys.exit(3)

process.main = main
process.run()
"""


@pytest.mark.parametrize("is_piped", [True, False], ids=["pipe", "file"])
def test_nothing_that_was_begun_is_lost(is_piped: bool, tmp_path: Path) -> None:
    stdout = (tmp_path / "out.txt").open("w+")
    with stdout:
        streams: dict[str, Any] = {} if is_piped else {"stdout": stdout}
        done = run_python(f"{WITH_TORCH}{FINALIZED}{RUN}{LEFT_OVER}", cwd=tmp_path, **streams)
        stdout.seek(0)
        lines = (done.stdout if is_piped else stdout.read()).splitlines()

    assert (done.returncode, done.stderr) == (3, "logged\n")
    assert sorted(lines[1:]) == ["future 10000", "handler", "thread", "x" * 1_000_000]
    assert not Path(lines[0]).exists()
    assert (tmp_path / "notes.txt").read_text() == "noted"


def test_reader_that_goes_away_is_no_error() -> None:
    source = f"{WITH_TORCH}{RUN}process.run()"
    command = ["/bin/sh", "-c", f'{sys.executable} -c "$0" generate --help | head -1', source]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.stdout == "Usage: sglang generate [OPTIONS]\n"
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_text_that_cannot_be_written_is_reported() -> None:
    source = f"{WITH_TORCH}{RUN}def main():\n    print('lost')\n    sys.exit(0)\nprocess.main = main\nprocess.run()"

    with open("/dev/full", "w") as full:
        done = run_python(source, stdout=full)

    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "sglang_core", "--version"], capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stdout.startswith("sglang ")
