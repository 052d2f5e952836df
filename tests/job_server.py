"""A server of jobs on a scripted engine, to be killed: ``python job_server.py FOLDER SEED``.

Submits jobs until it dies and prints each id as soon as it is accepted, and the final state of each that it sees end.
``SEED drain`` submits nothing and ends when nothing is left to do.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

from attrs import evolve
from scripted_supervisor import ScriptedSupervisor, a_job, a_plan

from sglang_core.engine.request_scheduler import QueueFullError, RequestScheduler
from sglang_core.jobs.service import JobService
from sglang_core.options.jobs import JobOptions
from sglang_plugins_builtin.sqlite_jobs.stores import SqliteJobStore

OUTCOMES = ["completed"] * 6 + ["failed", "lost_once", "lost", "too_large_beside"]
#: Some are so long that others run in their middle.
STEPS = [2, 2, 2, 40]


async def serve(folder: Path, seed: int, is_draining: bool) -> None:
    """Accept and run jobs until killed, or drain what others left."""
    service = JobService(
        store=SqliteJobStore().open(folder / "store"),
        supervisor=ScriptedSupervisor(can_interleave=True),  # type: ignore[arg-type]  # it does what the service asks for
        scheduler=RequestScheduler(30),
        storage=None,
        output_folder=folder / "outputs",
        input_folder=folder / "inputs",
        options=JobOptions(max_attempts=4),
        replan=a_plan,
        max_batch=2,
    )
    service.listeners.append(lambda job: say("over", job.id, job.status))
    await service.start()
    say("started")
    if is_draining:
        for job in service._live.unfinished:
            await service.wait(job.id)
        await service._housekeeper.sweep(time.time() + 1)
        await service.stop(1)
        return
    chance = random.Random(seed)
    for number in range(10**6):
        settings = {"outcome": chance.choice(OUTCOMES), "steps": chance.choice(STEPS), "step_s": 0.001}
        job = a_job(seed * 10**6 + number, settings=settings)
        upload = f"{job.id}_0.png"
        (folder / "inputs" / upload).write_bytes(b"an upload")
        try:
            accepted = await service.submit(evolve(job, input_files=(upload,)))
        except QueueFullError:
            (folder / "inputs" / upload).unlink()
            await asyncio.sleep(0.002)
            continue
        say("accepted", accepted.id)
        ids = [job.id for job in service._live.unfinished]
        if ids and chance.random() < 0.2:
            say("cancel", chosen := chance.choice(ids))
            await service.cancel(chosen)
        if ids and chance.random() < 0.1:
            say("delete", chosen := chance.choice(ids))
            await service.delete(chosen)


def say(*words: str) -> None:
    print(*words, flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), "drain" in sys.argv))
