"""From finished files to a storage, with records of what has not worked yet."""

import json
import logging
import threading

import pytest

from sglang_core import (
    Availability,
    ConfigError,
    OutputError,
    OutputUploaded,
    PendingUpload,
    RequestCancelledError,
    UnavailableError,
    UploadItem,
    create_control,
    generate_outputs,
    hookimpl,
    open_storage,
    pending_uploads,
    upload_file,
    upload_pending,
)
from sglang_core.testing import (
    MemoryStorage,
    MemoryUploader,
    bare_manager,
    check_storage_uploader,
    make_settings,
    memory_storage_plugin,
    no_op_plugin,
)

FAILURE = OutputError("the storage is away", "wait for it")


@pytest.fixture
def storage():
    return MemoryStorage()


@pytest.fixture
def generate(manager, storage, tiny_model, tmp_path):
    """Generate with a no-op backend, and upload to the memory."""
    manager.register(memory_storage_plugin(storage), "memory_storage")

    def run(backend=None, **settings):
        manager.register(no_op_plugin(order=-1, **(backend or {})), "no_op")
        values = {"model_path": str(tiny_model), "output_path": str(tmp_path / "out"), "prompt": "a"}
        merged = make_settings(manager, **{"cloud_storage_type": "memory", **values, **settings})
        run.events = []
        run.control = create_control(manager, merged, [run.events.append])
        return generate_outputs(manager, merged, run.control)

    return run


@pytest.fixture
def pending(tmp_path):
    """A file that waits for its upload."""
    path = tmp_path / "x.png"
    path.write_bytes(b"picture")
    record = PendingUpload(
        path=path, storage="memory", media_type="image/png", facts={"id": "1"}, problem="it was away"
    )
    record.keep()
    return record


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_memory_storage_keeps_the_contract(tmp_path):
    manager = bare_manager(host_options=True)

    check_storage_uploader(MemoryUploader(), make_settings(manager), tmp_path)


class Forgetful(MemoryStorage):
    """Reads back something else."""

    def read(self, key, start=0, length=None):
        yield b"something else"


class Sharing(MemoryStorage):
    """Puts everything under one key."""

    def upload(self, item):
        from attrs import evolve

        return evolve(super().upload(item), key="plain.png")


class Destructive(MemoryStorage):
    """Deletes what it was to upload."""

    def upload(self, item):
        stored = super().upload(item)
        item.path.write_bytes(b"")
        return stored


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        (Forgetful(), "reads back as other bytes"),
        (Sharing(), "reads back as other bytes|got 1 keys"),
        (Destructive(), "changed the local file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_storage_is_named(storage, sentence, tmp_path):
    with pytest.raises(AssertionError, match=sentence):
        check_storage_uploader(
            MemoryUploader(storage=storage), make_settings(bare_manager(host_options=True)), tmp_path
        )


def test_outputs_are_uploaded_and_deleted_here(generate, storage, tmp_path):
    result = generate(num_outputs=6, output_file_name="x.png")

    names = [f"x_{index}.png" for index in range(6)]
    assert [output.url for output in result.outputs] == [f"memory://storage/{name}" for name in names]
    assert [output.object_key for output in result.outputs] == names
    assert [output.path for output in result.outputs] == [None] * 6
    assert sorted(storage.objects) == names
    assert files(tmp_path / "out") == []
    assert storage.is_closed
    assert "upload" in result.timings_s
    uploaded = [event for event in generate.events if isinstance(event, OutputUploaded)]
    assert [event.index for event in uploaded] == list(range(6))


def test_uploader_is_told_what_the_file_is(generate, storage):
    generate(output_file_name="x.webp", num_outputs=2)

    facts = sorted((item.facts for item in storage.uploads), key=lambda facts: facts["index"])
    assert {item.media_type for item in storage.uploads} == {"image/webp"}
    assert [fact["index"] for fact in facts] == ["0", "1"]
    assert {fact["id"] for fact in facts} == {generate.control.run_id}
    assert {fact["kind"] for fact in facts} == {"image"}
    assert len(facts[0]["date"]) == len("2024-02-29")


def test_file_whose_upload_fails_stays_with_a_record(generate, storage, tmp_path, caplog):
    storage.error = FAILURE

    (output,) = generate(output_file_name="x.png").outputs

    assert (output.path, output.url, output.upload_error) == (tmp_path / "out" / "x.png", None, "the storage is away")
    assert files(tmp_path / "out") == [".x.png.upload.json", "x.png"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "x.png is not uploaded, and stays here: the storage is away" in warning
    assert f"Try: wait for it; then run 'sglang uploads {tmp_path / 'out'} --retry'" in warning


def test_storage_that_raises_anything_is_an_error_like_others(generate, storage):
    storage.error = RuntimeError("odd")

    (output,) = generate().outputs

    assert "odd" in output.upload_error


def test_record_is_there_before_the_upload(generate, storage, tmp_path):
    seen = []
    storage.on_upload = lambda item: seen.extend(files(tmp_path / "out"))

    generate(output_file_name="x.png")

    assert seen == [".x.png.upload.json", "x.png"]


def test_stopped_run_leaves_records_of_what_is_not_uploaded(generate, storage, tmp_path):
    has_begun, may_end = threading.Event(), threading.Event()

    def hang(item):
        generate.control.cancel()
        has_begun.set()
        may_end.wait(60)

    storage.on_upload = hang
    try:
        with pytest.raises(RequestCancelledError):
            generate(output_file_name="x.png")
        assert has_begun.wait(60)
        assert storage.is_closed
        assert files(tmp_path / "out") == [".x.png.upload.json", "x.png"]
    finally:
        may_end.set()


def test_run_that_saves_nothing_says_that_nothing_is_uploaded(generate, storage, caplog):
    generate(save_output=False)

    assert "nothing is uploaded: no file is saved that could be" in caplog.text
    assert storage.uploads == []


def test_nothing_is_uploaded_unless_asked(generate, storage, tmp_path):
    generate(cloud_storage_type=None, output_file_name="x.png")

    assert files(tmp_path / "out") == ["x.png"]
    assert storage.uploads == []


def test_pending_files_are_found_beside_their_records_wherever_they_were_moved(pending, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (pending.path, pending.record_path):
        path.rename(moved / path.name)

    (found,) = pending_uploads(moved)

    assert (found.path, found.problem, found.facts) == (moved / "x.png", "it was away", {"id": "1"})
    assert pending_uploads(tmp_path) == []


def test_retry_uploads_and_forgets(pending, storage, tmp_path):
    stored = upload_pending(storage, pending)

    assert stored.url == "memory://storage/x.png"
    assert storage.objects == {"x.png": b"picture"}
    assert files(tmp_path) == []


def test_retry_that_fails_says_why_on_the_record(pending, storage, tmp_path):
    storage.error = FAILURE

    with pytest.raises(OutputError, match="the storage is away"):
        upload_pending(storage, pending)

    assert [found.problem for found in pending_uploads(tmp_path)] == ["the storage is away"]


def test_file_that_another_process_uploads_is_left_alone(pending, storage):
    fcntl = pytest.importorskip("fcntl")
    with pending.record_path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert upload_pending(storage, pending) is None

    assert upload_pending(storage, pending) is not None
    assert upload_pending(storage, pending) is None


def test_record_whose_file_is_gone_is_removed(pending, tmp_path):
    pending.path.unlink()

    assert pending_uploads(tmp_path) == []
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "odd": 1}'])
def test_damaged_record_is_reported_and_kept(text, pending, tmp_path, caplog):
    pending.record_path.write_text(text)

    assert pending_uploads(tmp_path) == []
    assert f"{pending.record_path} is no record of an upload" in caplog.text
    assert files(tmp_path) == [".x.png.upload.json", "x.png"]


def test_record_names_no_file_outside_its_folder(pending, tmp_path):
    values = json.loads(pending.record_path.read_text())
    pending.record_path.write_text(json.dumps({**values, "path": "../../etc/passwd"}))

    assert [found.path for found in pending_uploads(tmp_path)] == [tmp_path / "x.png"]


def test_file_that_cannot_be_deleted_is_a_warning(storage, tmp_path, caplog, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"x")

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    stored = upload_file(storage, UploadItem(path=path, media_type="image/png"))

    assert stored.key == "x.png"
    assert "is uploaded, but cannot be deleted here: Permission denied" in caplog.text


def test_unknown_storage_names_the_known_ones(generate):
    with pytest.raises(ConfigError, match="unknown storage 'memry'") as caught:
        generate(cloud_storage_type="memry")

    assert caught.value.remedy == "use 'memory'"


def test_unavailable_storage_says_why():
    uploader = MemoryUploader(availability=Availability.no("no driver", "get one"))

    class Plugin:
        @hookimpl
        def sglang_register_storage_uploaders(self):
            return [uploader]

    manager = bare_manager(host_options=True)
    manager.register(Plugin(), "mine")

    with pytest.raises(UnavailableError, match="storage 'memory': no driver") as caught:
        open_storage(manager, make_settings(manager, cloud_storage_type="memory"))
    assert caught.value.remedy == "get one"
