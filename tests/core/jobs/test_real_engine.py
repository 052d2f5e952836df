"""The service on real rank processes: a job runs, one that kills its process fails alone, one is cancelled."""

import asyncio
import os

from attrs import evolve
from rank_plugins import write_rank_plugin
from scripted_supervisor import a_job

from sglang_core.engine.supervisor import Supervisor
from sglang_core.options import OptionGroup, Origin
from sglang_core.options.engine import EngineOptions
from sglang_core.options.settings import Given, merge
from sglang_plugins_builtin.launchers.spawn import SpawnLauncher


def serve_settings(manager, **values):
    groups = [group for group in manager.options.for_command("generate") if group.settings is not EngineOptions]
    groups.append(OptionGroup(name="engine", settings=EngineOptions, commands=("serve",)))
    fields = {field.name: field for group in groups for field in group.fields}
    origin = Origin(kind="python", label="test")
    return merge(groups, [[Given(field=fields[name], value=value, origin=origin) for name, value in values.items()]])


def test_jobs_on_real_ranks(manager, tiny_model, tmp_path, monkeypatch, place, until):
    site = write_rank_plugin(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("RANK_MARKS", str(tmp_path / "marks"))
    settings = serve_settings(manager, model_path=str(tiny_model), device="cpu", restart_delay_s=0.05)

    async def scenario():
        supervisor = Supervisor(manager, settings, launcher=SpawnLauncher())
        await supervisor.start()
        async with place.running(supervisor) as service:
            made = a_job(1, settings={"prompt": "a circle", "num_outputs_per_prompt": 2})
            deadly = a_job(2, settings={"prompt": "exit"})
            after = a_job(3, settings={"prompt": "a circle", "output_file_name": "x.jpeg"})
            for job in (made, deadly, after):
                await service.submit(evolve(job))
            jobs = [await service.wait(job.id, 120) for job in (made, deadly, after)]
            assert [job.status for job in jobs] == ["completed", "failed", "completed"]
            assert (jobs[1].error.code, jobs[1].attempts) == ("crashed", 2)
            files = [output.file for job in jobs for output in job.outputs]
            assert files == [f"{made.id}_0.png", f"{made.id}_1.png", f"{after.id}.jpeg"]
            assert all(service.content_path(jobs[0], i).read_bytes()[:4] == b"\x89PNG" for i in (0, 1))
            long = await service.submit(a_job(4, settings={"prompt": "a circle", "num_inference_steps": 100_000}))
            await until(lambda: service.statistics().running)
            await service.cancel(long.id)
            assert (await service.wait(long.id, 60)).status == "cancelled"
            await supervisor.stop(5.0)
        assert place.output_names == sorted(files)

    asyncio.run(asyncio.wait_for(scenario(), 240))
