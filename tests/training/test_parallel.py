from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from muon_worker import __file__ as worker

SCRIPT = """
import sys
from pathlib import Path

sys.path[:0] = {path!r}
from muon_worker import SayAndSleep
from shapes_training.parallel import run_processes

if __name__ == "__main__":
    run_processes(2, Path(sys.argv[1]), SayAndSleep(Path(sys.argv[1])))
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    training = Path(__file__).parents[2] / "training"
    script.write_text(SCRIPT.format(path=[str(Path(worker).parent), str(training)]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(worker).parent), str(training)])}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    try:
        while len(said := list(tmp_path.glob("pid-*"))) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        children = [int(path.name.removeprefix("pid-")) for path in said]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    deadline = time.monotonic() + 60
    while any(map(is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
