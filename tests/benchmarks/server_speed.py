"""Measure the server: start, what HTTP adds to a run, polling clients, batching, small requests beside a large one.

``python tests/benchmarks/server_speed.py [start] [overhead] [polling] [batching] [interleaving] [--runs N]``; without
names, all.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rank_plugins import write_rank_plugin

from sglang_core import Generator, create_plugin_manager
from sglang_core.testing import write_tiny_pipeline

PROMPT = "a small red circle above a blue square on a white background"
BODY = {"prompt": PROMPT, "seed": 1, "response_format": "url"}


@contextlib.contextmanager
def serving(folder: Path, *words: str, is_no_op: bool = False, **variables: str) -> Iterator[str]:
    """Run ``sglang serve`` until the block is left; give its URL when it is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_")}
    environment |= variables
    if is_no_op:
        environment["PYTHONPATH"] = str(write_rank_plugin(folder / "site"))
        words = ("--model-path", str(write_tiny_pipeline(folder / "tiny-model")), *words)
    command = [sys.executable, "-m", "sglang_core", "serve", "--port", "0", "--log-level", "warning", *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            while client.get("/health").status_code != 200:
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def start(runs: int, folder: Path) -> None:
    """Time from the command to the first answer of ``/liveness``."""
    seconds = []
    for turn in range(runs):
        command = [sys.executable, "-m", "sglang_core", "serve", "--port", "0", "--log-level", "error"]
        (folder / f"start-{turn}").mkdir()
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder / f"start-{turn}", stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/liveness").status_code == 200
        seconds.append(time.perf_counter() - began)
        process.kill()
        process.wait()
    print(f"\nfrom the command to the first answer: median {statistics.median(seconds):.2f} s   target 1 s")


def overhead(runs: int, folder: Path) -> None:
    """Compare requests over HTTP with calls in process, for a pipeline that does nothing."""
    count = 40 * runs
    with serving(folder / "overhead", is_no_op=True) as url, httpx.Client(base_url=url, trust_env=False) as client:
        over_http = times(lambda: client.post("/v1/images/generations", json=BODY).raise_for_status(), count)
    environment = os.environ.copy()
    sys.path.insert(0, str(folder / "overhead" / "site"))
    manager = create_plugin_manager()
    model = str(folder / "overhead" / "tiny-model")
    with Generator.from_pretrained(model, manager=manager, output_path=str(folder / "in-process")) as generator:
        in_process = times(lambda: generator.generate(PROMPT, seed=1), count)
    os.environ.update(environment)
    for name, percent, target in (("median", 50, 5), ("p99", 99, 20)):
        added = (quantile(over_http, percent) - quantile(in_process, percent)) * 1e3
        print(
            f"added by the server, {name:<6}: {added:6.1f} ms ({quantile(over_http, percent) * 1e3:.1f} against "
            f"{quantile(in_process, percent) * 1e3:.1f})   target {target} ms"
        )


def times(call: object, count: int) -> list[float]:
    """Return the seconds of so many calls, after a few that do not count."""
    assert callable(call)
    found = []
    for index in range(count + 5):
        began = time.perf_counter()
        call()
        if index >= 5:
            found.append(time.perf_counter() - began)
    return found


def quantile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def polling(runs: int, folder: Path) -> None:
    """Compare the steps of a run with and without a thousand clients that ask for its record when they are told to.

    The model has one thread, so that there is a core for the server and for the clients, which elsewhere are on other
    machines. What is left is what the cores share.
    """
    with serving(folder / "polling", "--max-steps", "10000", OMP_NUM_THREADS="1") as url:
        alone, polled, asked_per_s = asyncio.run(_poll(url, runs))
    ratio = statistics.median(polled) / statistics.median(alone)
    print(
        f"a step while 1,000 clients poll: {ratio:.3f} of its time alone   target 1.02 "
        f"({statistics.median(asked_per_s):.0f} questions a second)"
    )


async def _poll(url: str, runs: int, num_clients: int = 1000) -> tuple[list[float], list[float], list[float]]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120) as client:
        body = {**BODY, "num_inference_steps": 10_000, "run_in_background": True}
        job = (await client.post("/v1/images/generations", json=body)).raise_for_status().json()["id"]
        steps = _Steps()
        following = asyncio.create_task(steps.follow(client, job))
        await steps.seconds_each()
        alone, polled, asked_per_s = [], [], []
        for _ in range(runs):
            alone.append(await steps.seconds_each())
            stop, counter = asyncio.Event(), [0]
            pollers = [
                asyncio.create_task(_ask(url, job, stop, counter, 10 * n / num_clients)) for n in range(num_clients)
            ]
            await asyncio.sleep(15)  # until all know how often they may ask
            began, before = time.perf_counter(), counter[0]
            polled.append(await steps.seconds_each())
            asked_per_s.append((counter[0] - before) / (time.perf_counter() - began))
            stop.set()
            for poller in pollers:
                poller.cancel()
            await asyncio.gather(*pollers, return_exceptions=True)
        await client.post(f"/v1/images/{job}/cancel")
        following.cancel()
        return alone, polled, asked_per_s


class _Steps:
    """How far a run is, by the events that the server sends of it."""

    def __init__(self) -> None:
        self._index = 0

    async def follow(self, client: httpx.AsyncClient, job: str) -> None:
        """Listen until cancelled."""
        async with client.stream("GET", f"/v1/images/{job}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    self._index = event.get("step") or self._index

    async def seconds_each(self, window_s: float = 12.0) -> float:
        """Return the mean time of a step for a while."""
        began, before = time.perf_counter(), self._index
        await asyncio.sleep(window_s)
        return (time.perf_counter() - began) / max(1, self._index - before)


async def _ask(url: str, job: str, stop: asyncio.Event, counter: list[int], delay: float) -> None:
    """Ask for a job when told to, on a connection of its own.

    By hand, in a tenth of the time that an HTTP library takes: the clients of others are on other machines.
    """
    address = urlsplit(url)
    await asyncio.sleep(delay)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    while not stop.is_set():
        writer.write(f"GET /v1/images/{job} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        assert status.startswith("HTTP/1.1 200"), status
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers["content-length"]))
        counter[0] += 1
        await asyncio.sleep(int(headers["openai-poll-after-ms"]) / 1000)
    writer.close()


def batching(runs: int, folder: Path) -> None:
    """Compare the throughput of requests that come four at a time, with and without batches."""
    seconds: dict[str, list[float]] = {"1": [], "4": []}
    with (
        serving(folder / "single") as single,
        serving(folder / "batched", "--batching-max-size", "4", "--batching-delay-ms", "20") as batched,
    ):
        for turn in range(runs + 1):
            for size, url in (("1", single), ("4", batched)):
                found = _four_at_once(url, turn)
                if turn:
                    seconds[size].append(found)
    ratio = statistics.median(seconds["1"]) / statistics.median(seconds["4"])
    print(f"throughput of 4 requests in a batch: {ratio:.2f} times that of one by one   target 1.25")


def _four_at_once(url: str, turn: int) -> float:
    def ask(seed: int) -> None:
        httpx.post(f"{url}/v1/images/generations", json={**BODY, "seed": seed}, timeout=120).raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(10 * turn, 10 * turn + 4)))
    return time.perf_counter() - began


def interleaving(runs: int, folder: Path) -> None:
    """Compare the time from a small request to its answer beside a large one with that on a server that is free."""
    small = {**BODY, "size": "128x128"}
    large = {**BODY, "size": "512x512", "num_inference_steps": 500}
    with (
        serving(folder / "interleaving") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=600) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        alone = _times_of(client, small, runs)
        running = pool.submit(lambda: httpx.post(f"{url}/v1/images/generations", json=large, timeout=3600).status_code)
        while not (works := _in_progress(client)):
            time.sleep(0.05)
        time.sleep(2)
        beside = _times_of(client, small, runs)
        is_beside = not running.done()
        for job in works:
            client.post(f"/v1/images/{job}/cancel").raise_for_status()
    assert is_beside, "the large request ended too early to compare with"
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"a small request beside a large one: {ratio:.2f} times its time alone ({statistics.median(beside):.2f} "
        f"against {statistics.median(alone):.2f} s, at worst {max(beside):.2f} s)   target 3"
    )


def _times_of(client: httpx.Client, body: dict[str, object], runs: int) -> list[float]:
    """Return the seconds of so many requests, with pauses as long as the first, which does not count."""
    found: list[float] = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        client.post("/v1/images/generations", json=body).raise_for_status()
        found.append(time.perf_counter() - began)
        time.sleep(found[0])  # as clients that do not come one upon the other
    return found[1:]


def _in_progress(client: httpx.Client) -> list[str]:
    jobs = client.get("/v1/images").raise_for_status().json()["data"]
    return [job["id"] for job in jobs if job["state"] == "in_progress"]


def main() -> None:
    """Read the command line and print what is asked for."""
    tables = {each.__name__: each for each in (start, overhead, polling, batching, interleaving)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=list(tables))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.tables:
            tables[name](options.runs, Path(folder))


if __name__ == "__main__":
    main()
