"""Files appear whole or not at all, and every reason why they cannot has a remedy."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_core import OutputError
from sglang_core.outputs import check_writable, open_atomic


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "cat.png"

    with open_atomic(path) as hidden:
        hidden.write_bytes(b"pixels")
        assert not path.exists()
        assert hidden.parent == path.parent
        assert hidden.name.startswith(".")
        assert hidden.suffix == ".png"

    assert path.read_bytes() == b"pixels"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("stays", "flushed"), [(True, ["file", "folder"]), (False, ["file"])])
def test_the_name_of_a_file_that_stays_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool, flushed: list[str]
) -> None:
    found = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        found.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with open_atomic(tmp_path / "cat.png", stays=stays) as hidden:
        hidden.write_bytes(b"pixels")

    assert found == flushed


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with open_atomic(tmp_path / "cat.png") as hidden:
            hidden.write_bytes(b"pixels")
    finally:
        os.umask(umask)

    assert stat.S_IMODE((tmp_path / "cat.png").stat().st_mode) == 0o640


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"a longer old picture")

    with open_atomic(path) as hidden:
        hidden.write_bytes(b"new")

    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), SystemExit(143)], ids=lambda e: type(e).__name__
)
def test_whatever_is_raised_leaves_the_folder_as_it_was(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with open_atomic(path) as hidden:
            hidden.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail_half_way()

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
from sglang_core.outputs import open_atomic
with open_atomic(Path(sys.argv[1])) as hidden, hidden.open("wb") as file:
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_ctrl_c_while_encoding_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "cat.png")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        writer.send_signal(signal.SIGINT)

    assert writer.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_a_remedy(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / "cat.png"

    def fill_the_disk() -> None:
        with open_atomic(path) as hidden:
            hidden.write_bytes(b"half")
            Path("/dev/full").write_bytes(b"pixels")

    with pytest.raises(OutputError) as caught:
        fill_the_disk()

    assert caught.value.problem == f"cannot write {str(path)!r}: no space is left there"
    assert "--output-path" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
from sglang_core import OutputError
from sglang_core.outputs import check_writable, open_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    if sys.argv[3] == "check":
        check_writable(Path(sys.argv[1]).parent)
    else:
        with open_atomic(Path(sys.argv[1])) as hidden:
            hidden.write_bytes(bytes(100_000))
except OutputError as error:
    print(error.problem)
"""


@pytest.mark.parametrize(("limit", "action"), [(50_000, "write"), (1000, "check")])
def test_a_disk_that_takes_only_a_part_leaves_nothing(limit: int, action: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "cat.png"), str(limit), action]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "larger than this system allows" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(OutputError, match="permission denied"):
        check_writable(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses everybody")
def test_a_file_system_that_takes_no_files_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot write '/proc/self/out'") as caught:
        check_writable(Path("/proc/self/out"))

    assert "--output-path" in caught.value.remedy


@pytest.mark.parametrize("below", ["", "sub", "sub/deeper"])
def test_a_file_in_place_of_the_folder_is_refused(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    folder = tmp_path / "file" / below

    with pytest.raises(OutputError, match="a part of the path is a file, not a folder"):
        check_writable(folder)
    with pytest.raises(OutputError, match="a part of the path is a file, not a folder"), open_atomic(folder / "x.png"):
        pytest.fail("nothing can be written here")

    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_in_place_of_the_file_is_refused_before_encoding(tmp_path: Path) -> None:
    (tmp_path / "cat.png").mkdir()

    with pytest.raises(OutputError, match="it is a folder") as caught, open_atomic(tmp_path / "cat.png"):
        pytest.fail("encoded for nothing")

    assert "--output-file-name" in caught.value.remedy


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the name is too long"):
        check_writable(tmp_path / ("x" * 300) / "sub")


def test_the_preflight_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "kept.png").write_bytes(b"old")

    check_writable(tmp_path / "there")
    check_writable(tmp_path / "new" / "deeper")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept.png", "there"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), open_atomic(tmp_path / "cat.png"):
        pass

    assert list(tmp_path.iterdir()) == []
