import asyncio

import pytest
from scripted_supervisor import a_job

from sglang_core import OutputError
from sglang_core.jobs.files import JobFiles
from sglang_core.testing import MemoryStorage


def test_a_folder_for_work_is_used_again_if_it_is_empty_and_nobody_writes_there(tmp_path):
    files = JobFiles(tmp_path / "out", tmp_path / "in", None)
    files.open()
    empty, remains, lost = (files.make_work_folder() for _ in range(3))
    (remains / "half.png").write_bytes(b"half a picture")

    files.leave_work_folders({empty: True, remains: True, lost: False})

    assert [files.spare_work_folder(), files.spare_work_folder()] == [empty, None]
    assert [folder.exists() for folder in (empty, remains, lost)] == [True, False, False]
    files.close()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("storage", [None, MemoryStorage()], ids=["here", "uploaded"])
def test_outputs_that_can_not_be_moved_fail_their_job(place, monkeypatch, storage):
    def refuse(*_):
        raise OutputError("no space is left there", "free some space")

    monkeypatch.setattr(JobFiles, "take", refuse)

    async def scenario():
        async with place.running(storage=storage) as service:
            job = await service.wait((await service.submit(a_job(1))).id, 60)
            assert (job.status, job.outputs) == ("failed", ())
            assert job.error.code == "output_not_written"
            assert service.statistics().problem == ""

    asyncio.run(scenario())
