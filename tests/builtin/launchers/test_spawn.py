import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from sglang_core import EngineOptions, RankCommand, UnavailableError
from sglang_core.testing import bare_manager, make_settings
from sglang_plugins_builtin import launchers
from sglang_plugins_builtin.launchers import processes
from sglang_plugins_builtin.launchers.memory_kills import count_memory_kills
from sglang_plugins_builtin.launchers.spawn import SpawnLauncher


@pytest.fixture
def launch(tmp_path):
    """Launch Python code as ranks; the test's end of the channel comes with them."""
    launched, sockets = [], []

    def launch(code, world_size=1, environment=None):
        ours, theirs = socket.socketpair()
        sockets.extend([ours, theirs])
        argv = [sys.executable, "-S", "-c", code, str(theirs.fileno()), str(tmp_path)]
        command = RankCommand(argv=argv, world_size=world_size, environment=environment or {}, channel=theirs.fileno())
        ranks = SpawnLauncher().launch(command)
        launched.append(ranks)
        theirs.close()
        return ranks, ours

    yield launch
    for ranks in launched:
        ranks.kill(0.0)
    for each in sockets:
        each.close()


def wait_until(condition, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ranks_know_their_place_and_rank_0_has_the_channel(launch, tmp_path):
    code = """
import os, socket, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "EXTRA")
try:
    socket.socket(fileno=int(sys.argv[1])).sendall(b"hello")
    channel = "open"
except OSError:
    channel = "none"
line = " ".join([os.environ[name] for name in names] + [channel, str(os.getsid(0) == os.getpid())])
with open(f"{sys.argv[2]}/.rank{os.environ['RANK']}", "w") as file:
    file.write(line)
os.rename(f"{sys.argv[2]}/.rank{os.environ['RANK']}", f"{sys.argv[2]}/rank{os.environ['RANK']}")
"""
    ranks, ours = launch(code, world_size=2, environment={"EXTRA": "more"})
    wait_until(lambda: (tmp_path / "rank0").exists() and (tmp_path / "rank1").exists())

    first, second = ((tmp_path / f"rank{rank}").read_text().split() for rank in range(2))

    assert len(ranks.pids) == 2
    assert first == ["0", "0", "2", "127.0.0.1", first[4], "more", "open", "True"]
    assert second == ["1", "1", "2", "127.0.0.1", first[4], "more", "none", "True"]
    assert 0 < int(first[4]) < 65536
    assert ours.recv(10) == b"hello"


@pytest.mark.parametrize(
    ("code", "became"),
    [
        ("import sys; sys.exit(3)", "rank 0 ended with exit code 3"),
        ("pass", "rank 0 ended with exit code 0"),
        ("import os; os.kill(os.getpid(), 11)", "rank 0 was ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "rank 0 was ended by SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 2)", "rank 0 was ended by signal 36"),
    ],
    ids=["exit code", "success", "crash", "kill", "unnamed signal"],
)
def test_end_of_a_rank_is_told_with_its_reason(code, became, launch):
    ranks, _ = launch(code)

    wait_until(lambda: ranks.poll() is not None)

    assert ranks.poll() == became
    ranks.kill(0.0)
    assert ranks.poll() == became


def test_kill_for_lack_of_memory_is_told_apart(launch, monkeypatch):
    counts = iter([4, 5])
    monkeypatch.setattr(processes, "count_memory_kills", lambda: next(counts))
    ranks, _ = launch("import os; os.kill(os.getpid(), 9)")

    wait_until(lambda: ranks.poll() is not None)

    assert ranks.poll() == "rank 0 was killed by the system, which was out of memory (SIGKILL)"


FAMILY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
{handler}
with open(f"{{sys.argv[2]}}/.pids", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename(f"{{sys.argv[2]}}/.pids", f"{{sys.argv[2]}}/pids")
time.sleep(600)
"""


@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"], ids=["willing", "stubborn"])
def test_kill_takes_the_whole_family(handler, launch, tmp_path):
    ranks, _ = launch(FAMILY.format(handler=handler))
    wait_until(lambda: (tmp_path / "pids").exists())
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(is_alive(pid) for pid in pids)

    ranks.kill(0.3)

    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    assert ranks.poll() is not None
    ranks.kill(0.0)


def test_children_of_a_rank_that_is_gone_are_ended_too(launch, tmp_path):
    ranks, _ = launch(FAMILY.format(handler=""))
    wait_until(lambda: (tmp_path / "pids").exists())
    rank, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    os.kill(rank, signal.SIGKILL)
    wait_until(lambda: ranks.poll() is not None)
    assert is_alive(child)

    ranks.kill(0.0)

    wait_until(lambda: not is_alive(child))


def test_process_that_cannot_be_started_is_one_sentence_with_a_remedy(tmp_path):
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        pytest.raises(UnavailableError, match="no-such-python cannot be started: No such file") as refused,
    ):
        SpawnLauncher().launch(RankCommand(argv=[str(tmp_path / "no-such-python")], channel=theirs.fileno()))

    assert "ulimit -u" in refused.value.remedy


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("0::/system.slice/sglang.service\n", "system.slice/sglang.service/memory.events", "oom 3\noom_kill 2\n"),
        ("0::/host/path\n", "memory.events", "low 0\noom_kill 2\n"),
        ("9:cpu:/\n4:memory:/box\n0::/\n", "memory/box/memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ],
    ids=["cgroup v2", "cgroup v2 in a container", "cgroup v1"],
)
def test_memory_kills_are_read_from_either_version_of_cgroups(own, file, text, tmp_path):
    (tmp_path / "own").write_text(own)
    (tmp_path / "groups" / file).parent.mkdir(parents=True)
    (tmp_path / "groups" / file).write_text(text)
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 40\n")

    assert count_memory_kills(tmp_path / "own", tmp_path / "groups", tmp_path / "vmstat") == 2


def test_memory_kills_of_the_system_count_where_there_are_no_cgroups(tmp_path):
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 40\n")

    assert count_memory_kills(tmp_path / "none", tmp_path, tmp_path / "vmstat") == 40
    assert count_memory_kills(tmp_path / "none", tmp_path, tmp_path / "none") is None


def test_plugin_brings_the_launcher_and_the_settings_of_the_engine():
    manager = bare_manager()
    manager.register(launchers, "launchers")

    settings = make_settings(manager, "serve", batching_max_size=4, step_timeout_s="2.5")

    assert [launcher.name for launcher in manager.launchers] == ["spawn"]
    assert manager.launchers.get("spawn").probe().is_available
    assert settings.of(EngineOptions).batching_max_size == 4
    assert settings.of(EngineOptions).step_timeout_s == 2.5
    assert [group.name for group in manager.options.ignored_by("generate")] == ["engine"]
