"""``sglang serve`` as a process: real all through, with a model that does what its prompt says."""

import os
import signal
import subprocess
import sys

import httpx
from http_process import DEADLINE_S, wait_for
from rank_plugins import write_rank_plugin

from sglang_core.testing import write_tiny_pipeline


class RealServer:
    """A server on a port of its own; ``environment`` is added to that of the tests, without its SGLANG and HF parts.

    :param python: the interpreter, of another environment for example.
    """

    def __init__(self, folder, *words, kind="image", environment=None, python=sys.executable):
        site = write_rank_plugin(folder / "site")
        model = write_tiny_pipeline(folder / "tiny-model")
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "HF_"))}
        kept |= {"PYTHONPATH": str(site), "HOME": str(folder), "RANK_KIND": kind, "OMP_NUM_THREADS": "1"}
        places = ["--port", "0", "--output-path", folder / "out"]
        self._err = (folder / "stderr").open("w")
        self.process = subprocess.Popen(
            [python, "-m", "sglang_core", "serve", "--model-path", model, "--device", "cpu", *places, *words],
            cwd=folder, env={**kept, **(environment or {})}, stdout=subprocess.PIPE, stderr=self._err, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert "listening on" in line, self.err
        self.url = line.split()[-1]
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            wait_for(lambda: client.get("/health").status_code == 200, "the model")

    @property
    def err(self):
        """What the server and its ranks have said so far."""
        return (self.folder / "stderr").read_text()

    def client(self, **settings):
        """Return a client of this server."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=DEADLINE_S, **settings)

    def close(self):
        """Stop the server; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._err.close()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.returncode is None:
            self.close()


def served(folder, *words, **settings):
    """Yield a server, for fixtures."""
    with RealServer(folder, *words, **settings) as server:
        yield server
