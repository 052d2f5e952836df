"""Memory of weights that are mapped from files: handed back when their values have been copied elsewhere.

A page of a mapped file counts as the process's memory from its first reading on. Handed back it is only dropped from
the process: a later reading fetches it again, from the system's cache or from the file (madvise(2), MADV_DONTNEED).
"""

import ctypes
import mmap
import re
import sys
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

#: Start and end of a mapping, in bytes.
Mapping = tuple[int, int]
#: Its addresses, permissions, offset, device, inode (0 for plain memory) and path. Plain memory that has a path all the
#: same would lose its values: huge pages (``/anon_hugepage``), /dev/zero, and what was written to a ``/memfd:``.
_PRIVATE_FILE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ...p \S+ \S+ [1-9]\d* +/(?!dev/|anon_hugepage|memfd:|SYSV)", re.MULTILINE
)
#: Less than this is not worth the millisecond it takes to ask the system for the mappings.
_MIN_BYTES = 1 << 20


class MappedFiles:
    """The files that are mapped into this process; what it is asked about is there from the first time on."""

    def hold(self, tensor: torch.Tensor) -> bool:
        """Say whether a tensor, contiguous and on the CPU, lies in a mapped file."""
        return _contains(self._mappings, *_addresses(tensor))

    def give_back(self, tensor: torch.Tensor) -> int:
        """Drop the whole pages of a tensor that lies in a mapped file, and return their bytes; else do nothing.

        The tensor stays valid. What was written to it since it was mapped would be lost: weights are never written to.
        """
        if tensor.nbytes < _MIN_BYTES or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return 0
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):  # others may have no memory of their own
            return 0
        if not self.hold(tensor):
            return 0
        start, end = _addresses(tensor)
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        libc = ctypes.CDLL(None)
        failed = libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), ctypes.c_int(mmap.MADV_DONTNEED))
        return 0 if failed else size

    @cached_property
    def _mappings(self) -> list[Mapping]:
        return _private_file_mappings()


def _addresses(tensor: torch.Tensor) -> tuple[int, int]:
    start = tensor.data_ptr()
    return start, start + tensor.nbytes


def _contains(mappings: Sequence[Mapping], start: int, end: int) -> bool:
    index = bisect_right(mappings, start, key=lambda mapping: mapping[0]) - 1
    return index >= 0 and end <= mappings[index][1]


def _private_file_mappings() -> list[Mapping]:
    """Return the mappings of regular files that this process has for itself, in order of address; see proc(5)."""
    if sys.platform != "linux":
        return []
    try:
        text = Path("/proc/self/maps").read_bytes()
    except OSError:
        return []
    return [(int(match[1], 16), int(match[2], 16)) for match in _PRIVATE_FILE.finditer(text)]
