"""Keeps the ranks alive, gives them work, and says what became of it, in the server's event loop and without torch."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from ..errors import ModelLoadError, SglangError
from ..log_lines import is_json_log
from ..options import Settings
from ..options.convert import to_plain
from ..options.engine import EngineOptions
from ..plugins import PluginManager
from .channel import Message
from .launching import Launcher, choose_launcher
from .rank_life import Ending, RankLife
from .wire import error_from_json, settings_to_json
from .work import ItemEvent, ItemResult, Work, WorkItem, result_from_json
from .work_runs import WorkRun

__all__ = ["EngineState", "ItemEvent", "ItemResult", "Supervisor", "Work", "WorkItem", "choose_launcher"]

logger = logging.getLogger(__name__)

EngineState = Literal["starting", "ready", "restarting", "failed", "stopped"]

#: A life that was ready for so long was no failed start, even if nothing was asked of it.
_PROVEN_S = 60.0
_MAX_DELAY_S = 60.0
_STOPPED = Ending(code="stopped", reason="the server was stopped", remedy="start the server again")


class Supervisor:
    """Starts the ranks, starts them again when they crash or hang, and runs one work at a time on them.

    Where the pipeline can, one more may run in the middle of that one.

    :param settings: those the model is loaded with.
    :param launcher: in place of the one that the settings choose.
    :raises UnavailableError: if no launcher can work here.
    """

    def __init__(self, manager: PluginManager, settings: Settings, *, launcher: Launcher | None = None) -> None:
        self.state: EngineState = "starting"
        #: Why the state is what it is, and what would help; empty while all is well.
        self.reason = ""
        self.remedy = ""
        #: The plan that the ranks run, as ``sglang explain --json`` shows it.
        self.plan_json: Mapping[str, Any] | None = None
        #: Whether a work can run in the middle of another; known when the ranks are ready.
        self.can_interleave = False
        #: How far loading is: stage, index and total.
        self.loading: Mapping[str, Any] = {}
        #: How often the ranks were started again.
        self.num_restarts = 0
        self._launcher = launcher or choose_launcher(manager, settings)
        self._options = settings.of(EngineOptions)
        self._setup = {
            "settings": settings_to_json(settings),
            "disabled": sorted(record.name for record in manager.records.values() if record.is_disabled),
            "log_levels": _log_levels(manager),
            "is_json_log": is_json_log(),
        }
        self._life: RankLife | None = None
        #: The works that are not over, and the one of them whose turn it is.
        self._runs: list[WorkRun] = []
        self._run: WorkRun | None = None
        self._turn = asyncio.Lock()
        #: What the ranks say of what they are to follow, and which of the calls it is about.
        self._following: asyncio.Future[SglangError | None] | None = None
        self._num_followed = 0
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._num_failures = 0
        self._failure: SglangError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[EngineState], None]] = []

    async def start(self) -> None:
        """Begin to load; returns at once. Call it in the thread that lives as long as the server."""
        assert self._keeper is None, "a supervisor is started once"
        self._keeper = asyncio.create_task(self._keep(), name="ranks")

    async def wait_ready(self) -> None:
        """Wait until the model is loaded.

        :raises SglangError: if it cannot be; what the ranks said of it.
        """
        while self.state in ("starting", "restarting"):
            await self._change()
        if self.state != "ready":
            raise self._failure or ModelLoadError(self.reason, self.remedy)

    def on_state(self, callback: Callable[[EngineState], None]) -> None:
        """Have ``callback`` called with every new state, in the event loop; ``reason`` is set by then."""
        self._callbacks.append(callback)

    async def run(
        self, work: Work, on_event: Callable[[ItemEvent], None], *, is_interjected: bool = False
    ) -> tuple[ItemResult, ...]:
        """Run a work as soon as the ranks are ready and free; return the result of each item, in their order.

        Never raises for an item. If the caller is cancelled the items are too.

        :param on_event: told how far each item is, in the event loop; it must be quick.
        :param is_interjected: run it in the middle of the work that runs, at the next boundary of that, if there is
            one and the pipeline can. Make one such call at a time.
        """
        run = WorkRun(work, on_event, is_interjected=is_interjected)
        self._runs.append(run)
        is_within = is_interjected and self.can_interleave and self._run is not None and self._run.life is not None
        task = asyncio.create_task(self._run_within(run, work) if is_within else self._run_in_turn(run, work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            for item_id in run.items:
                self._cancel(run, item_id)
            raise

    async def follow(self, values: Mapping[str, Any]) -> None:
        """Have the ranks get ready for requests with these settings, between two works, as soon as it is their turn.

        Works carry their settings themselves: what this saves is time at the next one, and it tells what can not be.

        :raises SglangError: what the ranks say of it, or why they can not be asked.
        """
        async with self._turn:
            while self.state in ("starting", "restarting"):
                await self._change()
            life = self._life
            if life is None or self.state != "ready" or self._stopping.is_set():
                raise ModelLoadError(self.reason or _STOPPED.reason, self.remedy or _STOPPED.remedy)
            self._following = asyncio.get_running_loop().create_future()
            self._num_followed += 1
            life.send("follow", {"settings": to_plain(values), "number": self._num_followed})
            try:
                error = await self._following
            finally:
                self._following = None
        if error is not None:
            raise error

    def cancel(self, item_id: str) -> None:
        """Stop an item that runs; its result comes at its next boundary. An unknown id does nothing."""
        for run in self._runs:
            if item_id in run.items:
                self._cancel(run, item_id)

    def _cancel(self, run: WorkRun, item_id: str) -> None:
        run.cancelled.add(item_id)
        if run.life is not None:
            run.life.send("cancel", {"id": item_id})
        self._wake()

    async def stop(self, grace_s: float) -> None:
        """End the ranks: a work that runs may end within ``grace_s`` seconds, else it is lost."""
        self._stopping.set()
        life = self._life
        if life is not None and self.state == "ready":
            life.send("shutdown")
        elif life is not None:
            await life.kill(_STOPPED)
        if self._keeper is not None:
            done, _ = await asyncio.wait({self._keeper}, timeout=grace_s)
            if not done and self._life is not None:
                await self._life.kill(_STOPPED)
            await self._keeper
        self._enter("stopped", _STOPPED.reason, _STOPPED.remedy)

    async def _run_in_turn(self, run: WorkRun, work: Work) -> tuple[ItemResult, ...]:
        async with self._turn:
            self._run = run
            try:
                while self.state in ("starting", "restarting") and not run.is_all_cancelled:
                    await self._change()
                await self._run_now(run, work)
            finally:
                self._run = None
                self._runs.remove(run)
        return tuple(run.results[item_id] for item_id in run.items)

    async def _run_within(self, run: WorkRun, work: Work) -> tuple[ItemResult, ...]:
        """Run a work without waiting for its turn: the ranks begin it at the next boundary of the one that runs."""
        try:
            await self._run_now(run, work)
        finally:
            self._runs.remove(run)
        return tuple(run.results[item_id] for item_id in run.items)

    async def _run_now(self, run: WorkRun, work: Work) -> None:
        items, life = run.drop_cancelled(), self._life
        if life is None or self.state != "ready" or self._stopping.is_set():
            lost = Ending(code="crashed", reason=self.reason, remedy=self.remedy)
            run.lose(_STOPPED if self._stopping.is_set() else lost)
        elif items:
            run.life = life
            life.has_worked = True
            life.send("run", run.to_message(items, work.folder))
            await run.is_over.wait()

    async def _keep(self) -> None:
        """Live through one life of the ranks after the other."""
        try:
            while not self._stopping.is_set():
                is_final, ending = await self._live()
                if self._stopping.is_set():
                    return
                if is_final or self._num_failures > self._options.max_restarts or not self._options.max_restarts:
                    self._enter("failed", ending.reason, ending.remedy)
                    return
                self._enter("restarting", ending.reason, ending.remedy)
                self.num_restarts += 1
                await self._pause(self._delay_s())
        except Exception as error:  # whatever a launcher does must show in the server's health
            logger.exception("the model's processes are no longer looked after")
            self._enter(
                "failed", f"the server's engine failed: {type(error).__name__}: {error}", "see the server's log"
            )

    async def _live(self) -> tuple[bool, Ending]:
        """Launch the ranks and follow them to their end; return whether another try is useless, and why they ended."""
        try:
            life = await RankLife.begin(self._launcher)
        except SglangError as error:
            self._failure = error
            return True, Ending(code="failed", reason=error.problem, remedy=error.remedy)
        self._life = life
        if self._stopping.is_set():  # meanwhile, before there was anything to kill
            await life.kill(_STOPPED)
        life.send("setup", self._setup)
        watchdog = asyncio.create_task(self._watch(life))
        try:
            while life.verdict is None and (message := await life.receive()) is not None:
                self._take(life, message)
        except asyncio.CancelledError:  # the loop is closed without stop()
            life.ranks.kill(0.0)
            raise
        finally:
            watchdog.cancel()
            await asyncio.wait({watchdog})
        ending = await life.end()
        self._life = None
        if self._stopping.is_set():
            ending = _STOPPED
        elif life.failure is not None:
            self._failure = life.failure
            ending = Ending(code="failed", reason=life.failure.problem, remedy=life.failure.remedy)
        has_proven = life.has_worked or (life.is_ready and life.age_s > _PROVEN_S)
        self._num_failures = 0 if has_proven else self._num_failures + 1
        if not self._stopping.is_set():
            logger.error("%s", ending.reason)
            # Before the work is told of its loss, so that nobody takes the ranks for ready.
            self._enter("restarting", ending.reason, ending.remedy)
        for run in [run for run in self._runs if run.is_on(life)]:
            run.lose(ending)
        self._take_followed(ModelLoadError(ending.reason, ending.remedy))
        return life.failure is not None and not self._was_ready, ending

    def _take(self, life: RankLife, message: Message) -> None:
        """Act on one message of the ranks."""
        values = message.values
        try:
            if message.kind == "loading":
                self.loading = values
            elif message.kind == "ready":
                if self._was_ready:
                    logger.info("the model's process runs again")
                life.is_ready = self._was_ready = True
                self.plan_json, self._failure = values["plan"], None
                self.can_interleave = values["can_interleave"]
                self._enter("ready")
            elif message.kind == "failed":
                life.failure = error_from_json(values["error"])
            elif message.kind == "followed" and values["number"] == self._num_followed:
                self._take_followed(None if values["error"] is None else error_from_json(values["error"]))
            elif message.kind in ("begun", "event", "result", "done"):
                self._take_of_run(life, message)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the model's process sent a message that is none: {message.kind}: {error!r}"
            life.verdict = Ending(code="crashed", reason=reason, remedy="look into the server's log")

    def _take_followed(self, error: SglangError | None) -> None:
        if self._following is not None and not self._following.done():
            self._following.set_result(error)

    def _take_of_run(self, life: RankLife, message: Message) -> None:
        """Act on a message about a work, or one of its items; one that is over is of no interest."""
        values = message.values
        runs = [run for run in self._runs if run.is_on(life)]
        if message.kind in ("begun", "done"):
            for run in [run for run in runs if run.number == values["work"]]:
                run.has_begun = True
                if message.kind == "done":
                    run.lose(Ending(code="failed", reason="the model's process forgot the request", remedy="report it"))
            return
        for run in [run for run in runs if values["id"] in run.items]:
            if message.kind == "event":
                run.tell(ItemEvent(**{**values, "preview_png": message.payload or None}))
            else:
                run.results[values["id"]] = result_from_json(values)

    async def _watch(self, life: RankLife) -> None:
        """Kill ranks that are silent for too long, or whose channel outlives them."""
        options = self._options
        tick_s = min(1.0, options.step_timeout_s / 8, options.load_timeout_s / 8)
        while True:
            await asyncio.sleep(tick_s)
            is_running = any(run.is_on(life) for run in self._runs) or self._following is not None
            if not life.is_ready and life.quiet_s > options.load_timeout_s:
                await life.kill(_hung("loading made no progress", life.quiet_s, "--load-timeout-s"))
            elif is_running and life.quiet_s > options.step_timeout_s:
                await life.kill(_hung("the run gave no sign of life", life.quiet_s, "--step-timeout-s"))
            elif life.ranks.poll() is not None and life.quiet_s > tick_s:
                await life.kill()

    def _delay_s(self) -> float:
        """Return the pause before the next launch: none for the first, then doubled from launch to launch."""
        if self._num_failures <= 1:
            return 0.0
        return min(_MAX_DELAY_S, self._options.restart_delay_s * 2.0 ** (self._num_failures - 2))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _change(self) -> None:
        """Wait until something happens: a new state, or an item is cancelled."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _enter(self, state: EngineState, reason: str = "", remedy: str = "") -> None:
        is_new = (state, reason) != (self.state, self.reason)
        self.state, self.reason, self.remedy = state, reason, remedy
        self._wake()
        for callback in self._callbacks if is_new else ():
            try:
                callback(state)
            except Exception:  # the caller's code
                logger.warning("a listener failed on the state %s", state, exc_info=True)


def _hung(what: str, quiet_s: float, flag: str) -> Ending:
    reason = f"{what} for {quiet_s:.1f} s, and the model's process was ended"
    return Ending(code="hung", reason=reason, remedy=f"repeat it, or allow more time with {flag}")


def _log_levels(manager: PluginManager) -> dict[str, int]:
    names = {"sglang_core", *(record.target.partition(".")[0] for record in manager.records.values())}
    levels = {name: logging.getLogger(name).level for name in sorted(names)}
    return {name: level for name, level in levels.items() if level}
