"""The compute capability is asked of the CUDA driver, without torch."""

import ctypes

import pytest

from sglang_core import devices


class Driver:
    """The five functions of libcuda, for GPUs of these capabilities."""

    def __init__(self, *capabilities, status=0):
        self.capabilities = capabilities
        self.status = status

    def cuInit(self, flags):  # noqa: N802 - the driver's spelling
        return self.status

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, number, attribute, device):  # noqa: N802
        number._obj.value = self.capabilities[device.value][{75: 0, 76: 1}[attribute]]
        return 0


@pytest.fixture(autouse=True)
def _asked_afresh():
    devices.compute_capability.cache_clear()
    yield
    devices.compute_capability.cache_clear()


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (Driver((9, 0)), (9, 0)),
        (Driver((12, 0), (8, 6)), (8, 6)),
        (Driver(), None),
        (Driver((9, 0), status=100), None),
    ],
    ids=["one", "the lowest of two", "none visible", "no device"],
)
def test_the_driver_is_asked(monkeypatch, driver, found):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)

    assert devices.compute_capability() == found


def test_without_a_driver_there_is_none(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)

    assert devices.compute_capability() is None
