"""When clients are told to ask again."""

import time
from types import SimpleNamespace

import pytest

from sglang_core import Job
from sglang_plugins_builtin.openai_api.polling import Polling


def a_job(status: str = "queued", **values: object) -> Job:
    return Job(id="video_1", kind="video", operation="videos", created_at=1.0, settings={}, status=status, **values)


class Clients:
    """Clients of a server that expects a queued job to wait for ``wait_s``."""

    def __init__(self, wait_s: float | None = None) -> None:
        self.now = 100.0
        jobs = SimpleNamespace(wait_s=lambda job_id: wait_s)
        self._polling = Polling(SimpleNamespace(jobs=jobs), now=lambda: self.now)

    def ask(self, job: Job, port: int = 1) -> int:
        headers = self._polling.headers(SimpleNamespace(client=("127.0.0.1", port)), job)
        return int(headers["openai-poll-after-ms"]) if headers else 0


@pytest.mark.parametrize(("wait_s", "interval_ms"), [(None, 500), (0.0, 250), (4.0, 800), (600.0, 5000)])
def test_a_client_asks_five_times_while_its_job_waits(wait_s, interval_ms):
    assert Clients(wait_s).ask(a_job()) == interval_ms


def test_a_client_asks_seldom_at_the_begin_of_a_long_run_and_often_at_its_end():
    clients = Clients()
    started_at = time.time() - 30

    intervals = [clients.ask(a_job("in_progress", started_at=started_at, progress=part)) for part in (0.1, 0.8, 0.99)]

    assert intervals[0] == 5000
    assert 1400 < intervals[1] < 1700  # 7.5 s are left
    assert intervals[2] == 250
    assert clients.ask(a_job("in_progress", started_at=started_at, progress=0.01)) == 500  # too early to tell


def test_nobody_asks_for_what_is_over():
    assert Clients().ask(a_job("completed", completed_at=2.0)) == 0


def test_a_thousand_clients_ask_a_hundred_times_a_second_together():
    clients = Clients()

    intervals = [clients.ask(a_job(), port) for port in range(1000)]

    assert intervals[-1] == 10_000
    assert intervals[10] == 500


def test_clients_that_ask_no_more_are_forgotten():
    clients = Clients()
    for port in range(1000):
        clients.ask(a_job(), port)

    clients.now += 60

    assert clients.ask(a_job(), 5) == 500
