import asyncio
import os
import time
from pathlib import Path

import pytest
from rank_plugins import write_rank_plugin

from sglang_core.engine.supervisor import Supervisor, Work, WorkItem
from sglang_core.options import OptionGroup, Origin
from sglang_core.options.engine import EngineOptions
from sglang_core.options.settings import Given, merge
from sglang_plugins_builtin.launchers.spawn import SpawnLauncher


@pytest.fixture
def rank_marks(tmp_path, monkeypatch):
    """Where rank processes leave marks: its text is the beginning of the files' names."""
    monkeypatch.setenv("RANK_MARKS", str(tmp_path / "marks"))
    return tmp_path / "marks"


@pytest.fixture
def serve_settings(manager, tiny_model, tmp_path, monkeypatch, rank_marks):
    """Return settings for a model that rank processes run with the plugin of ``rank_plugins``."""
    site = write_rank_plugin(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))

    def settings(**values):
        groups = [group for group in manager.options.for_command("generate") if group.settings is not EngineOptions]
        groups.append(OptionGroup(name="engine", settings=EngineOptions, commands=("serve",)))
        fields = {field.name: field for group in groups for field in group.fields}
        values = {"model_path": str(tiny_model), "device": "cpu", "restart_delay_s": 0.05, **values}
        origin = Origin(kind="python", label="test")
        return merge(
            groups, [[Given(field=fields[name], value=value, origin=origin) for name, value in values.items()]]
        )

    return settings


@pytest.fixture
def supervised(manager, serve_settings, tmp_path):
    """Run ``body(supervisor, run)`` with real rank processes; ``run(*items, tell=...)`` gives the results."""
    folder = tmp_path / "outputs"

    def supervised(body, *, ready=True, **values):
        async def main():
            supervisor = Supervisor(manager, serve_settings(**values), launcher=SpawnLauncher())

            async def run(*items, tell=lambda event: None, **options):
                return await supervisor.run(Work(items=items, folder=folder), tell, **options)

            await supervisor.start()
            try:
                if ready:
                    await supervisor.wait_ready()
                return await body(supervisor, run)
            finally:
                await supervisor.stop(5.0)

        return asyncio.run(asyncio.wait_for(main(), 240))

    supervised.folder = folder
    return supervised


@pytest.fixture
def item():
    def item(item_id, prompt="a circle", **settings):
        return WorkItem(id=item_id, settings={"prompt": prompt, **settings})

    return item


@pytest.fixture
def is_gone():
    """Wait until a process is gone, or a zombie."""

    def is_gone(pid, limit_s=60.0):
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            time.sleep(0.01)
        return False

    return is_gone
