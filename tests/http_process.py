"""A server process for tests: started, talked to, stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

PROGRAM = Path(__file__).with_name("scripted_server.py")
#: Generous: what is waited for comes in a moment, except where everything else on the machine is busy.
DEADLINE_S = 100.0


def wait_for(condition, what):
    """Return what ``condition`` gives as soon as that is true."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if found := condition():
                return found
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


class ServerProcess:
    """``tests/scripted_server.py`` as a process. ``script`` tells it what to do."""

    def __init__(self, folder, *words, pass_fds=(), plugins="", environment=None):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "HF_"))}
        self._err = (folder / "stderr").open("w")
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, "--output-path", folder / "out", "--input-save-path", folder / "in", *words],
            env={
                **kept,
                "PYTHONPATH": str(PROGRAM.parent),
                "SCRIPT": str(folder),
                "SCRIPT_PLUGINS": plugins,
                "HOME": str(folder),
                "XDG_CACHE_HOME": str(folder / "cache"),
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
            pass_fds=pass_fds,
        )

    def script(self, name, text="1"):
        """Tell the engine; ``None`` removes the word."""
        path = self.folder / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").replace(path)

    def listening(self):
        """Wait until the server listens; return its URL."""
        line = self.process.stdout.readline()
        assert line.startswith("sglang serve: listening on "), self.err
        self.url = line.split()[-1]
        return self

    def ready(self):
        """Wait until ``/health`` is 200."""
        self.listening()
        with self.client() as client:
            wait_for(lambda: client.get("/health").status_code == 200, "the model")
        return self

    def wait_with(self, key):
        """Wait until the server, which listens, is ready for a client with a key."""
        with self.client(headers={"Authorization": f"Bearer {key}"}) as client:
            wait_for(lambda: client.get("/health").status_code == 200, "the model")

    def client(self, **settings):
        """Return a client of this server."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=DEADLINE_S, **settings)

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    @property
    def err(self):
        return (self.folder / "stderr").read_text()

    def ended(self):
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout=DEADLINE_S)

    def stop(self, number=signal.SIGTERM):
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._err.close()
