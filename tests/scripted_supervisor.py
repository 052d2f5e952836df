"""A supervisor without an engine: each job's settings say what becomes of it."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sglang_core import GenerationRequest, Job, JobError, JobOutput, RequestError, Settings
from sglang_core.engine.work import ItemEvent, ItemResult

CONTENT = b"a picture"


class ScriptedSupervisor:
    """Runs items as their settings say.

    ``steps`` and ``step_s`` shape the run, ``outcome`` is ``completed``, ``failed``, ``lost``, ``lost_once``, ``empty``
    or ``raises``, or ``too_large_beside`` for what fails in the middle of another, ``num_outputs`` how many files it
    makes.
    """

    def __init__(self, state: str = "ready", *, can_interleave: bool = False) -> None:
        self.state = state
        self.can_interleave = can_interleave
        #: The works that ran in the middle of others.
        self.interjected: list[list[str]] = []
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self.reason = self.remedy = ""
        self.works: list[list[str]] = []
        self.folders: list[Path] = []
        self.cancelled: set[str] = set()
        self._seen: set[str] = set()
        self._callbacks: list[Any] = []

    def on_state(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def enter(self, state: str) -> None:
        self.state = state
        for callback in self._callbacks:
            callback(state)

    def cancel(self, item_id: str) -> None:
        if any(item_id in work for work in self.works):
            self.cancelled.add(item_id)

    async def run(self, work: Any, on_event: Any, *, is_interjected: bool = False) -> tuple[ItemResult, ...]:
        await asyncio.sleep(0)  # as the real one: a cancel that comes too early is not heard
        if not is_interjected:
            return await self._run_all(work, on_event)
        self._may_go_on.clear()
        self.interjected.append([item.id for item in work.items])
        try:
            return await self._run_all(work, on_event, is_interjected=True)
        finally:
            self._may_go_on.set()

    async def _run_all(self, work: Any, on_event: Any, *, is_interjected: bool = False) -> tuple[ItemResult, ...]:
        self.works.append([item.id for item in work.items])
        self.folders.append(work.folder)
        if any(item.settings.get("outcome") == "raises" for item in work.items):
            raise RuntimeError("the engine is broken")
        return tuple([await self._run(item, work.folder, on_event, is_interjected) for item in work.items])

    async def _run(self, item: Any, folder: Path, on_event: Any, is_interjected: bool) -> ItemResult:
        settings = item.settings
        paused_s = 0.0
        steps = settings.get("steps", 2)
        for step in range(1, steps + 1):
            await asyncio.sleep(settings.get("step_s", 0))
            if not is_interjected:
                began = time.monotonic()
                await self._may_go_on.wait()
                paused_s += time.monotonic() - began
            if item.id in self.cancelled:
                return ItemResult(id=item.id, is_cancelled=True)
            preview = b"png" if settings.get("previews") else None
            on_event(
                ItemEvent(
                    id=item.id, stage="denoise", index=step, total=steps, unit="step", progress=step / steps,
                    preview_png=preview,
                )
            )  # fmt: skip
        outcome = settings.get("outcome", "completed")
        if outcome == "failed" or (outcome == "too_large_beside" and is_interjected):
            return ItemResult(id=item.id, error=JobError(code="out_of_memory", message="too large", remedy="smaller"))
        if outcome == "lost" or (outcome == "lost_once" and item.id not in self._seen):
            self._seen.add(item.id)
            return ItemResult(id=item.id, is_lost=True, error=JobError(code="crashed", message="the engine crashed"))
        names = [f"{item.id}-{i}.png" for i in range(0 if outcome == "empty" else settings.get("num_outputs", 1))]
        for name in names:
            (folder / name).write_bytes(CONTENT)
        outputs = tuple(an_output(index=i, file=name) for i, name in enumerate(names))
        timings_s = {"denoise": 0.5}
        return ItemResult(id=item.id, outputs=outputs, timings_s=timings_s, paused_s=paused_s, peak_memory_bytes=1000)


def an_output(**values: Any) -> JobOutput:
    known = {"index": 0, "kind": "image", "media_type": "image/png", "width": 8, "height": 8, "num_frames": 1}
    return JobOutput(**{**known, "num_bytes": 0, "seed": 1, "file": None, **values})


def a_plan(settings: Any) -> Any:
    """Return what the service needs to know of a plan."""
    if settings.get("prompt") == "impossible":
        raise RequestError("this model makes no such thing", "ask for something else")
    steps = settings.get("steps", 2)
    request = GenerationRequest(prompt=settings.get("prompt", "a"), width=8, height=8, num_inference_steps=steps)
    output = SimpleNamespace(extension="png", compression=None, x264_preset="fast")
    return SimpleNamespace(requests=(request,), output=output, settings=Settings(values={}))


def a_job(number: int, kind: str = "image", settings: Any = None, **values: Any) -> Job:
    return Job(
        id=f"{kind}_{number:032x}", kind=kind, operation=f"{kind}s", created_at=1000.0 + number,
        settings=settings or {}, **values,
    )  # fmt: skip
