from sglang_core.jobs.files import JobFiles


def test_a_folder_for_work_is_used_again_if_it_is_empty_and_nobody_writes_there(tmp_path):
    files = JobFiles(tmp_path / "out", tmp_path / "in", None)
    files.open()
    empty, remains, lost = (files.make_work_folder() for _ in range(3))
    (remains / "half.png").write_bytes(b"half a picture")

    for folder, is_quiet in ((empty, True), (remains, True), (lost, False)):
        files.leave_work_folder(folder, is_quiet=is_quiet)

    assert [files.spare_work_folder(), files.spare_work_folder()] == [empty, None]
    assert [folder.exists() for folder in (empty, remains, lost)] == [True, False, False]
    files.close()
    assert not list((tmp_path / "out").iterdir())
