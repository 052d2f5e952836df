"""How often Linux has killed a process for lack of memory, as far as this process may know."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_SYSTEM = Path("/proc/vmstat")


def count_memory_kills(
    own_cgroups: Path = _OWN_CGROUPS, cgroups: Path = _CGROUPS, system: Path = _SYSTEM
) -> int | None:
    """Return the count of this process's control group, else of the whole system; ``None`` where neither can be read.

    The files and their line ``oom_kill`` are described in the kernel's documentation of both versions of cgroups.
    """
    for path in (*_candidates(own_cgroups, cgroups), system):
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            key, _, count = line.partition(" ")
            if key == "oom_kill" and count.strip().isdigit():
                return int(count)
    return None


def _candidates(own_cgroups: Path, cgroups: Path) -> list[Path]:
    try:
        lines = own_cgroups.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        folder = group.lstrip("/")
        if controllers == "":  # version 2; in a container its own group is the root of what it sees
            found += [cgroups / folder / "memory.events", cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            found += [cgroups / "memory" / folder / "memory.oom_control", cgroups / "memory" / "memory.oom_control"]
    return found
