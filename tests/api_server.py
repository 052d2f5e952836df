"""A server with the OpenAI API on a real socket, over jobs that draw noise in this process."""

import asyncio
import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from attrs import evolve
from hypercorn.asyncio import serve
from hypercorn.config import Config

from sglang_core import (
    CallDescription,
    ConflictError,
    Job,
    JobError,
    JobEvent,
    JobOutput,
    JobQuery,
    SglangError,
    plan_run,
)
from sglang_core.options.server import ServerOptions
from sglang_core.server.app import create_app, with_host_layers
from sglang_core.server.auth import KeyRing, read_keys
from sglang_core.server.context import Server
from sglang_core.server.front import Front
from sglang_core.testing import bare_manager, make_settings, no_op_plugin, write_tiny_pipeline
from sglang_plugins_builtin import media, model_sources, openai_api

CALL = {
    "prompt": None,
    "negative_prompt": None,
    "width": 64,
    "height": 48,
    "num_inference_steps": 4,
    "guidance_scale": 1.0,
    "eta": 0.0,
}


class QueueIsFullError(SglangError):
    """What the queue raises; the host maps it by its retry_after_s."""

    retry_after_s = 3.0


class DrawnJobs:
    """A job service without engine and store. ``gate`` holds running jobs at their second step while it is closed."""

    def __init__(self, output_folder: Path) -> None:
        self.output_folder = output_folder
        self.jobs: dict[str, Job] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.failure: JobError | None = None
        self.is_full = False
        self._changes: dict[str, list[asyncio.Queue[JobEvent]]] = {}
        self._cancelled: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, job: Job, **_: Any) -> Job:
        if self.is_full:
            raise QueueIsFullError("3 requests wait already", "try again later")
        for known in self.jobs.values():
            if job.idempotency_key is not None and (known.owner, known.idempotency_key) == (
                job.owner,
                job.idempotency_key,
            ):
                if known.request_digest != job.request_digest:
                    raise ConflictError("the key was used before for another request", "use a new key")
                return known
        self.jobs[job.id] = job
        task = asyncio.create_task(self._run(job.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, job_id: str) -> None:
        await asyncio.sleep(0.01)
        if job_id in self._cancelled:
            self._change(job_id, "finished", status="cancelled", completed_at=time.time())
            return
        self._change(job_id, "started", status="in_progress", started_at=time.time())
        for step in range(1, 5):
            while step == 2 and not self.gate.is_set() and job_id not in self._cancelled:  # noqa: ASYNC110 - of a thread
                await asyncio.sleep(0.01)
            if job_id in self._cancelled:
                self._change(job_id, "finished", status="cancelled", completed_at=time.time())
                return
            self._change(job_id, "progress", step, progress=step / 5, stage="denoise")
            if self.jobs[job_id].settings.get("num_previews"):
                self._change(job_id, "preview", step, _picture(16, 16, "PNG"))
            await asyncio.sleep(0)
        if self.failure is not None:
            self._change(job_id, "finished", status="failed", error=self.failure, completed_at=time.time())
            return
        outputs = await asyncio.to_thread(self._draw, self.jobs[job_id])
        changes = {"outputs": outputs, "completed_at": time.time(), "progress": 1.0, "timings_s": {"denoise": 0.01}}
        self._change(job_id, "finished", status="completed", **changes)

    def _draw(self, job: Job) -> tuple[JobOutput, ...]:
        count = job.settings.get("num_outputs_per_prompt", 1)
        seeds = job.settings.get("seed", [42])
        width, height = job.api["width"], job.api["height"]
        suffix = Path(job.settings["output_file_name"]).suffix
        outputs = []
        for index in range(count):
            name = f"{job.id}_{index}{suffix}" if count > 1 else f"{job.id}{suffix}"
            path = self.output_folder / name
            if job.kind == "image":
                kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix]
                path.write_bytes(_picture(width, height, kind))
            else:
                _clip(path, width, height, job.api["num_frames"], job.api["fps"])
            outputs.append(
                JobOutput(
                    index=index,
                    kind=job.kind,
                    media_type={".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}.get(
                        suffix, "video/mp4"
                    ),
                    width=width,
                    height=height,
                    num_frames=job.api.get("num_frames", 1),
                    num_bytes=path.stat().st_size,
                    seed=seeds[0] + index,
                    file=name,
                    fps=job.api.get("fps"),
                )
            )
        return tuple(outputs)

    def _change(
        self, job_id: str, kind: Any, step: int | None = None, preview: bytes | None = None, **changes: Any
    ) -> None:
        if job_id not in self.jobs:
            return
        job = self.jobs[job_id] = evolve(self.jobs[job_id], **changes)
        event = JobEvent(
            kind=kind, job=job, stage="denoise" if step else None, index=step, total=4 if step else None,
            preview_png=preview,
        )  # fmt: skip
        for queue in self._changes.get(job_id, []):
            queue.put_nowait(event)

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        job = self.jobs.get(job_id)
        return job if job is not None and owner in (None, job.owner) else None

    async def list(self, query: JobQuery) -> list[Job]:
        found = [j for j in self.jobs.values() if j.kind == query.kind and query.owner in (None, j.owner)]
        if query.order == "desc":
            found.reverse()
        ids = [job.id for job in found]
        if query.after is not None:
            found = found[ids.index(query.after) + 1 :] if query.after in ids else []
        return found[: query.limit]

    async def cancel(self, job_id: str, **_: Any) -> Job | None:
        job = self.jobs[job_id]
        if not job.is_over:
            self._cancelled.add(job_id)
            if job.status == "in_progress":
                self._change(job_id, "progress", status="cancelling")
        return self.jobs[job_id]

    async def delete(self, job_id: str, **_: Any) -> Job | None:
        for path in self.output_folder.glob(f"{job_id}*"):
            path.unlink()
        return self.jobs.pop(job_id)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        while not self.jobs[job_id].is_over:  # noqa: ASYNC110 - that is no matter for a test's stand-in
            await asyncio.sleep(0.005)
        return self.jobs[job_id]

    async def events(self, job_id: str, **_: Any) -> AsyncIterator[JobEvent]:
        queue: asyncio.Queue[JobEvent] = asyncio.Queue()
        job = self.jobs[job_id]
        kind: Any = "finished" if job.is_over else "queued" if job.status == "queued" else "progress"
        queue.put_nowait(JobEvent(kind=kind, job=job, queue_position=0 if kind == "queued" else None))
        self._changes.setdefault(job_id, []).append(queue)
        try:
            while True:
                event = await queue.get()
                yield event
                if event.kind == "finished":
                    return
        finally:
            self._changes[job_id].remove(queue)

    def queue_position(self, job_id: str) -> int | None:
        return 0

    def wait_s(self, job_id: str) -> float | None:
        return 0.5

    def content_path(self, job: Job, index: int) -> Path | None:
        file = job.outputs[index].file
        path = self.output_folder / file if file else None
        return path if path is not None and path.is_file() else None


class ReadySupervisor:
    """An engine that is always ready."""

    state, reason, remedy, plan_json = "ready", "", "", None


class LiveApi:
    """A running server: its address, its jobs, and the parts that a test changes."""

    def __init__(self, server: Server, jobs: DrawnJobs, port: int) -> None:
        self.server = server
        self.jobs = jobs
        self.url = f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def live_api(
    folder: Path,
    kind: Any = "image",
    *,
    takes_image: bool = False,
    needs_image: bool = False,
    takes_mask: bool = False,
    **options: Any,
) -> Iterator[LiveApi]:
    """Serve a model that makes images or clips until the body is done.

    :param options: of :class:`ServerOptions`.
    """
    call: dict[str, Any] = {**CALL, **({"image": None} if takes_image or needs_image else {})}
    call |= {"num_frames": 5, "fps": 8} if kind == "video" else {}
    call |= {"image": None, "mask_image": None, "strength": 0.6} if takes_mask else {}
    required = ("image",) if needs_image else ()
    described = CallDescription(
        kind=kind, parameters=call, required=required, multiple_of=8, frames_step=4 if kind == "video" else None
    )
    manager = bare_manager(host_options=True)
    for module in (media, model_sources, openai_api):
        manager.register(module, module.__name__.rpartition(".")[2])
    manager.register(no_op_plugin(kind=kind, call=described), "no_op")
    assert not manager.failures, manager.failures
    model = write_tiny_pipeline(folder / "tiny-model")
    settings = make_settings(manager, "generate", model_path=str(model))
    server_options = ServerOptions(**{"served_model_name": ("tiny", "gpt-image-1", "sora-2"), **options})
    (folder / "outputs").mkdir(exist_ok=True)
    jobs = DrawnJobs(folder / "outputs")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        server = Server(
            manager=manager,
            settings=settings,
            options=server_options,
            plan=plan_run(manager, settings, may_lack_inputs=True).plan,
            supervisor=ReadySupervisor(),
            jobs=jobs,
            storage=None,
            output_folder=folder / "outputs",
            input_folder=folder / "inputs",
            url=f"http://127.0.0.1:{port}",
        )
        with _served(server, listener.detach()):
            yield LiveApi(server, jobs, port)


@contextlib.contextmanager
def _served(server: Server, descriptor: int) -> Iterator[None]:
    front = Front()
    front.app = create_app(server)
    keys = read_keys(server.options)
    app = with_host_layers(front, server.options, keys or KeyRing(), _Loopback(), [])
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.errorlog = logging.getLogger("tests.hypercorn")
    config.graceful_timeout = 2
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(serve(app, config, shutdown_trigger=stop.wait)), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()
        loop.close()


class _Loopback:
    is_public = False
    url = "http://127.0.0.1"


def _picture(width: int, height: int, kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, kind)
    return file.getvalue()


def png(width: int = 8, height: int = 8) -> bytes:
    """Return a small picture."""
    return _picture(width, height, "PNG")


def _clip(path: Path, width: int, height: int, num_frames: int, fps: int) -> None:
    import av
    import numpy

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            pixels = numpy.full((height, width, 3), index * 40 % 256, dtype=numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
