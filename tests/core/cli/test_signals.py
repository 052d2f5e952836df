"""Ctrl-C and SIGTERM, in real processes that run a plugin found by its entry point."""

import os
import signal
import subprocess
import sys

import pytest

PLUGIN = """
import sys
from sglang_core.testing import no_op_plugin

def say(index):
    print(f"step {index}", file=sys.stderr, flush=True)

plugin = no_op_plugin(name="slow", order=-1, step_s=0.02, on_step=say)
"""
STUCK = "import time\n" + PLUGIN.replace("flush=True)", "flush=True)\n    time.sleep(600)")


@pytest.fixture
def start(tmp_path, tiny_model):
    """Start ``sglang generate`` with a plugin package that lies on the path."""
    site = tmp_path / "site"
    info = site / "slow_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sglang.plugins]\nslow = slow_plugin:plugin\n")
    processes = []

    def start(*words, source=PLUGIN):
        (site / "slow_plugin.py").write_text(source)
        command = [sys.executable, "-m", "sglang_core", "generate", "--model-path", str(tiny_model), "--prompt", "a"]
        process = subprocess.Popen(
            [*command, "--output-path", str(tmp_path / "out"), "--num-inference-steps", "5000", *words],
            env={**os.environ, "PYTHONPATH": str(site)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended without {text!r}")


def files(tmp_path):
    folder = tmp_path / "out"
    return [path.name for path in folder.rglob("*")] if folder.exists() else []


def test_ctrl_c_ends_a_run_within_a_step(start, tmp_path):
    process = start()
    wait_for(process, "step 3")

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "stopping after this step; press Ctrl-C again to stop at once" in err
    assert err.endswith("sglang: cancelled\nTry: run the command again\n")
    assert "Traceback" not in err
    assert out == ""
    assert files(tmp_path) == []


def test_second_signal_ends_a_step_that_hangs(start, tmp_path):
    process = start(source=STUCK)
    wait_for(process, "step 1")

    process.send_signal(signal.SIGTERM)
    wait_for(process, "press Ctrl-C again")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.endswith("sglang: cancelled\nTry: run the command again\n")
    assert files(tmp_path) == []
