"""What every test gets: an environment of its own and the built-in plugins."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sglang_core import PluginManager, create_plugin_manager
from sglang_core.testing import no_op_plugin, write_tiny_pipeline


def pytest_configure() -> None:
    """Let Ctrl-C tests work where the tests run in the background: there SIGINT is ignored, also by every child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _isolated_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of this machine's user in: no settings, no token, no cache."""
    for name in list(os.environ):
        if name.startswith(("SGLANG_", "HF_", "HUGGING_FACE_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Undo what the command line configures, whose stream is gone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("sglang_core", "sglang_plugins_builtin")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def manager() -> PluginManager:
    """Built-ins only: what is installed on this machine must not change a test."""
    return create_plugin_manager(only_built_ins=True)


@pytest.fixture
def no_op_manager(manager: PluginManager) -> PluginManager:
    """The built-ins and a backend whose steps cost nothing, which --backend auto prefers."""
    manager.register(no_op_plugin(order=-1), "no_op")
    return manager


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """The folder of a pipeline without anything trained."""
    return write_tiny_pipeline(tmp_path / "tiny")


class Finished(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def sglang(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_op_manager: PluginManager
) -> Callable[..., Finished]:
    """Run a command line in this process, with ``no_op_manager``'s plugins."""
    from sglang_core.cli import app, main

    monkeypatch.setattr(app, "create_plugin_manager", lambda **_: no_op_manager)

    def run(*words: object) -> Finished:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Finished(int(stopped.value.code or 0), out, err)

    return run
