"""Measure the server: its start, what it adds to a run, records, polling, batches, small requests beside a large one.

``python tests/benchmarks/server_speed.py [start] [overhead] [records] [polling] [batching] [interleaving] [--runs N]``;
without names, all.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
from attrs import evolve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rank_plugins import write_rank_plugin
from server_clients import WINDOW_S, Connection, Pollers, Steps

from sglang_core import Generator, Job, JobOutput, create_plugin_manager
from sglang_core.testing import write_tiny_pipeline
from sglang_plugins_builtin.sqlite_jobs.database import SqliteJobs

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
    """Compare requests over HTTP with calls in process, for a pipeline that does nothing.

    The two take turns, in blocks. The client asks by hand, as in :func:`polling`; what a client of httpx adds to that
    is told beside it. So is how late two processes that compute in turn are, which is what the machine adds: nothing
    of it is taken off.
    """
    over_http: list[float] = []
    with_httpx: list[float] = []
    in_process: list[float] = []
    environment = os.environ.copy()
    with serving(folder / "overhead", is_no_op=True) as url, httpx.Client(base_url=url, trust_env=False) as client:
        sys.path.insert(0, str(folder / "overhead" / "site"))
        manager = create_plugin_manager()
        model = str(folder / "overhead" / "tiny-model")
        connection = Connection(url)
        with Generator.from_pretrained(model, manager=manager, output_path=str(folder / "in-process")) as generator:
            for _ in range(2 * runs):
                over_http += times(lambda: connection.post("/v1/images/generations", BODY), 20)
                with_httpx += times(lambda: client.post("/v1/images/generations", json=BODY).raise_for_status(), 20)
                in_process += times(lambda: generator.generate(PROMPT, seed=1), 20)
        connection.close()
    os.environ.update(environment)
    for name, percent, target in (("median", 50, 5), ("p99", 99, 20)):
        base = quantile(in_process, percent)
        print(
            f"added by the server, {name:<6}: {(quantile(over_http, percent) - base) * 1e3:6.1f} ms "
            f"({quantile(over_http, percent) * 1e3:.1f} against {base * 1e3:.1f}; with a client of httpx "
            f"{(quantile(with_httpx, percent) - base) * 1e3:.1f})   target {target} ms"
        )
    alone = _turns_s(quantile(over_http, 50) / 2, len(over_http))
    print(
        f"two processes that compute in turn as long as a request: median {quantile(alone, 50) * 1e3:.1f}, "
        f"p99 {quantile(alone, 99) * 1e3:.1f} ms"
    )


def _turns_s(each_s: float, count: int) -> list[float]:
    """Return the seconds of so many rounds in which two processes compute one after the other, ``each_s`` each."""
    additions = _additions_in(each_s)
    here, there = socket.socketpair()
    if not (child := os.fork()):
        here.close()
        while there.recv(1):
            sum(range(additions))
            there.sendall(b"x")
        os._exit(0)
    there.close()

    def round_of_both() -> None:
        sum(range(additions))
        here.sendall(b"x")
        here.recv(1)

    found = times(round_of_both, count)
    here.close()
    os.waitpid(child, 0)
    return found


def _additions_in(seconds: float) -> int:
    found = min(times(lambda: sum(range(100_000)), 20))
    return round(100_000 * seconds / found)


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
    machines. What is left is what the cores share. Windows with and without questions take turns, and each with them
    is compared with the two around it: the machine changes from second to second by more than the clients do.
    """
    with serving(folder / "polling", "--max-steps", "10000", OMP_NUM_THREADS="1") as url:
        alone, polled, asked_per_s = asyncio.run(_poll(url, 8 * runs))
    ratios = [2 * each / (alone[i] + alone[i + 1]) for i, each in enumerate(polled)]
    print(
        f"a step while 1,000 clients poll: {statistics.median(ratios):.3f} of its time alone, half of "
        f"{len(ratios)} windows from {quantile(ratios, 25):.3f} to {quantile(ratios, 75):.3f}   target 1.02 "
        f"({asked_per_s:.0f} questions a second)"
    )


async def _poll(url: str, count: int, num_clients: int = 1000) -> tuple[list[float], list[float], float]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120) as client:
        body = {**BODY, "size": "512x512", "num_inference_steps": 10_000, "run_in_background": True}
        job = (await client.post("/v1/images/generations", json=body)).raise_for_status().json()["id"]
        steps, pollers = Steps(), Pollers(url, job)
        following = asyncio.create_task(steps.follow(client, job))
        asking = [asyncio.create_task(pollers.ask(10 * n / num_clients)) for n in range(num_clients)]
        await asyncio.sleep(15)  # until all know how often they may ask
        pollers.is_asking = False
        alone, polled, num_asked = [await steps.seconds_each()], [], 0
        for _ in range(count):
            pollers.is_asking, before = True, pollers.num_asked
            polled.append(await steps.seconds_each())
            pollers.is_asking = False
            num_asked += pollers.num_asked - before
            alone.append(await steps.seconds_each())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await client.post(f"/v1/images/{job}/cancel")
        following.cancel()
        return alone, polled, num_asked / (count * WINDOW_S)


def records(runs: int, folder: Path) -> None:
    """Measure what keeping a job costs, in a store that has 5,000 jobs already: its three changes, and reading it."""
    store = SqliteJobs(folder / "records")
    settings = {"prompt": PROMPT, "seed": [1], "output_file_name": "img_x.png", "num_inference_steps": 20}
    output = JobOutput(
        index=0, kind="image", media_type="image/png", width=128, height=128, num_frames=1, num_bytes=1653, seed=1,
        file="img_x.png", receipt={"settings": settings},
    )  # fmt: skip
    seconds: dict[str, list[float]] = {"create": [], "begin": [], "end": [], "read": []}
    for index in range(5000 + 200 * runs):
        job = Job(
            id=f"img_{index:032x}", kind="image", operation="images.generations", created_at=time.time(),
            settings=settings, api={"model": "demo/shapes-image", "response_format": "url", "width": 128},
        )  # fmt: skip
        calls = {
            "create": partial(store.create, job),
            "begin": partial(store.change, job.id, lambda each: evolve(each, status="in_progress", attempts=1)),
            "end": partial(store.change, job.id, lambda each: evolve(each, status="completed", outputs=(output,))),
            "read": partial(store.get, job.id),
        }
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if index >= 5000:
                seconds[name].append(time.perf_counter() - began)
    store.close()
    each = ", ".join(
        f"{name} {statistics.median(found) * 1e3:.2f} (p99 {quantile(found, 99) * 1e3:.2f})"
        for name, found in seconds.items()
    )
    total = sum(statistics.median(seconds[name]) for name in ("create", "begin", "end"))
    print(f"a job's record: {total * 1e3:.2f} ms in all; {each}   target 1 ms")


def batching(runs: int, folder: Path) -> None:
    """Compare the throughput of requests that come four at a time, with and without batches.

    At the model's own size, of which one alone does not fill the machine, and at larger ones, which do.
    """
    with (
        serving(folder / "single") as single,
        serving(folder / "batched", "--batching-max-size", "4", "--batching-delay-ms", "20") as batched,
    ):
        for size, steps, target in (("128x128", 20, 1.25), ("512x512", 6, 0.98), ("768x768", 3, 0.98)):
            body = {**BODY, "size": size, "num_inference_steps": steps}
            ratios = []
            for turn in range(runs + 1):
                order = (single, batched) if turn % 2 else (batched, single)
                seconds = {url: _four_at_once(url, body, turn) for url in order}
                if turn:
                    ratios.append(seconds[single] / seconds[batched])
            print(
                f"throughput of 4 requests of {size} in a batch: {statistics.median(ratios):.2f} times that of one by "
                f"one ({min(ratios):.2f} to {max(ratios):.2f})   target {target}"
            )


def _four_at_once(url: str, body: dict[str, object], turn: int) -> float:
    connections = [Connection(url) for _ in range(4)]

    def ask(index: int) -> None:
        connections[index].post("/v1/images/generations", {**body, "seed": 10 * turn + index})

    with ThreadPoolExecutor(4) as pool:
        began = time.perf_counter()
        list(pool.map(ask, range(4)))
        seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return seconds


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


#: Everything that is measured, by name.
TABLES = {each.__name__: each for each in (start, overhead, records, polling, batching, interleaving)}


def main() -> None:
    """Read the command line and print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.tables:
            TABLES[name](options.runs, Path(folder))


if __name__ == "__main__":
    main()
