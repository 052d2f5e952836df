"""A service on a scripted engine, and what a restart of it sees."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from scripted_supervisor import ScriptedSupervisor, a_plan

from sglang_core.engine.request_scheduler import RequestScheduler
from sglang_core.jobs.service import JobService
from sglang_core.options.jobs import JobOptions
from sglang_plugins_builtin.sqlite_jobs.stores import MemoryJobStore, SqliteJobStore


class Place:
    """Folders of a server, which outlive it."""

    def __init__(self, folder: Path) -> None:
        self.outputs = folder / "outputs"
        self.inputs = folder / "inputs"
        self.store = folder / "store"
        self.outputs.mkdir()
        self.inputs.mkdir()

    @property
    def output_names(self) -> list[str]:
        return sorted(path.name for path in self.outputs.iterdir() if not path.name.startswith(".sglang-work-"))

    def service(
        self,
        supervisor=None,
        *,
        store="sqlite",
        max_queue=100,
        storage=None,
        max_batch=1,
        is_interleaving=True,
        **options,
    ):
        kind = SqliteJobStore() if store == "sqlite" else MemoryJobStore()
        return JobService(
            store=kind.open(self.store) if isinstance(store, str) else store,
            supervisor=supervisor or ScriptedSupervisor(),
            scheduler=RequestScheduler(max_queue),
            storage=storage,
            output_folder=self.outputs,
            input_folder=self.inputs,
            options=JobOptions(**options),
            replan=a_plan,
            max_batch=max_batch,
            is_interleaving=is_interleaving,
        )

    @contextlib.asynccontextmanager
    async def running(self, *args, grace_s=2.0, **options):
        service = self.service(*args, **options)
        await service.start()
        try:
            yield service
        finally:
            await service.stop(grace_s)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def until():
    """Wait for a condition."""

    async def wait(condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, "it does not come true"
            await asyncio.sleep(0.005)
        return result

    return wait
