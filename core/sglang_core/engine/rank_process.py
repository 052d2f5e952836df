"""The process that holds the model: ``python -m sglang_core.engine.rank_process DESCRIPTOR``.

The server starts it, sends the settings over the channel, and is told when the model is ready; then works come, one
after the other, or one to be run in the middle of another. The process lives as long as the channel: whatever happens
to the server, no rank outlives it.

Messages from the server are ``setup`` (``settings``, ``disabled``, ``log_levels``, ``is_json_log``), ``run`` (``work``,
``items``, ``folder``, ``is_interjected``), ``follow`` (``settings``, ``number``), ``cancel`` (``id``) and ``shutdown``;
to it ``loading`` (``stage``, ``index``, ``total``), ``ready`` (``plan``, ``can_interleave``), ``failed`` (``error``),
``begun`` (``work``), ``event`` (an :class:`~.work.ItemEvent`, its preview as payload), ``alive``, ``result`` (an
:class:`~.work.ItemResult`), ``done`` (``work``) and ``followed`` (``number``, ``error``).
"""

import ctypes
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import ModelLoadError, SglangError
from ..events import Event, StageStarted, StepDone
from ..generation import announced, load_engine, warn_of
from ..log_lines import log_json_only
from ..planning import plan_run
from ..plugins import create_plugin_manager
from .channel import ChannelError, Message, read_message
from .control import StepControl
from .in_process import Engine
from .item_runs import ItemRunner
from .rank_control import RunWork
from .wire import error_to_json, settings_from_json
from .work import ItemEvent, ItemResult, WorkItem
from .work_queue import WorkQueue

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_BYTES_INTERVAL_S = 0.25


def main() -> NoReturn:
    """Serve the channel whose descriptor is the first argument, until it is closed."""
    _ignore_signals()
    _end_with_parent()
    faulthandler.enable()
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    channel.setblocking(True)
    rank = RankProcess(channel)
    try:
        code = rank.serve()
    except (BrokenPipeError, ConnectionResetError):  # the server is gone
        _leave(1, with_group=True)
    _leave(code)


class RankProcess:
    """One end of the channel, with the engine behind it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._stream: BinaryIO = channel.makefile("rb")
        self._send_lock = threading.Lock()
        self._works = WorkQueue()
        self._runner: ItemRunner | None = None

    def serve(self) -> int:
        """Load what the server asks for, and run works until it says ``shutdown``; return the exit code."""
        setup = read_message(self._stream)
        if setup is None:
            return 1
        threading.Thread(target=self._listen, name="channel", daemon=True).start()
        try:
            engine = self._load(setup.values)
        except SglangError as error:
            self._send("failed", {"error": error_to_json(error)})
            return 2
        except Exception as error:  # plugins are asked while planning: foreign code may raise anything
            logger.error("loading failed", exc_info=True)
            problem = f"loading the model failed: {type(error).__name__}: {error}"
            self._send("failed", {"error": error_to_json(ModelLoadError(problem, "look into the server's log"))})
            return 2
        with engine:
            while (message := self._works.get()) is not None:
                if message.kind == "follow":
                    self._follow(message)
                else:
                    self._run(message)
        return 0

    def _listen(self) -> None:
        """Take messages in while the main thread works; the end of the channel is the end of the process."""
        try:
            while (message := read_message(self._stream)) is not None:
                runner = self._runner
                if message.kind == "run" and runner is not None:
                    runner.begin(_items(message))  # here, so that no cancel can come too early
                    self._works.put(message)
                elif message.kind == "cancel" and runner is not None:
                    runner.cancel(message.values["id"])
                elif message.kind == "follow":
                    self._works.put(message)
                elif message.kind == "shutdown":
                    self._works.put(None)
        except (ChannelError, OSError):
            logger.error("the channel to the server is broken", exc_info=True)
        _leave(1, with_group=True)

    def _load(self, values: Mapping[str, Any]) -> Engine:
        _configure_logging(values["log_levels"], is_json=values["is_json_log"])
        manager = create_plugin_manager(disable=set(values["disabled"]))
        settings = settings_from_json(manager, values["settings"])
        # Without the settings' deadline: that is one of requests, for loading the server has its own.
        control = StepControl([*manager.listeners(), _LoadReporter(self._send)])
        with announced(control, settings):
            with control.stage("plan"):
                planned = plan_run(manager, settings, may_lack_inputs=True)
            warn_of(planned.plan.warnings)
            engine = load_engine(manager, planned, control)
        self._runner = ItemRunner(
            manager, settings, engine, tell=self._tell, on_life=self._say_alive, interjected=self._interjected
        )
        gc.collect()
        gc.freeze()  # the model stays: the collector need not go through it in the middle of runs
        self._send("ready", {"plan": planned.plan.to_json(), "can_interleave": engine.can_interleave})
        return engine

    def _run(self, message: Message) -> None:
        assert self._runner is not None
        if message.values["is_interjected"]:  # any other begins as soon as it is here
            self._send("begun", {"work": message.values["work"]})
        items = _items(message)
        num_open, last = len(items), list[Message]()

        def finished(result: ItemResult) -> None:
            nonlocal num_open
            num_open -= 1
            told = Message(kind="result", values=result.to_json())
            if num_open:
                self._send_at_once(told)
            else:  # goes with the end of the work, so that the server wakes up once for both
                last.append(told)

        try:
            self._runner.run(items, Path(message.values["folder"]), finished)
        except BaseException:
            self._send_at_once(*last)  # what has ended is told, whatever comes after it
            raise
        self._send_at_once(*last, Message(kind="done", values={"work": message.values["work"]}))

    def _follow(self, message: Message) -> None:
        assert self._runner is not None
        refusal = None
        try:
            self._runner.follow(message.values["settings"])
        except SglangError as error:
            refusal = error
        except Exception as error:  # a transform is foreign code
            logger.error("the pipeline could not be changed", exc_info=True)
            problem = f"the pipeline could not be changed: {type(error).__name__}: {error}"
            refusal = ModelLoadError(problem, "look into the server's log")
        answer = {"number": message.values["number"], "error": None if refusal is None else error_to_json(refusal)}
        self._send("followed", answer)

    def _interjected(self) -> RunWork | None:
        message = self._works.take_interjected()
        return None if message is None else partial(self._run_within, message)

    def _run_within(self, message: Message) -> None:
        """Run a work in the middle of another, which must not suffer from whatever goes wrong with it."""
        try:
            self._run(message)
        except OSError:  # the channel: the server is gone
            raise
        except Exception:  # a fault of ours: every item has its own limits
            logger.exception("a work failed in the middle of another")
            self._send("done", {"work": message.values["work"]})

    def _tell(self, event: ItemEvent) -> None:
        self._send("event", event.to_json(), event.preview_png or b"")

    def _say_alive(self) -> None:
        self._send("alive", {})

    def _send(self, kind: str, values: Mapping[str, Any], payload: bytes = b"") -> None:
        self._send_at_once(Message(kind=kind, values=values, payload=payload))

    def _send_at_once(self, *messages: Message) -> None:
        encoded = b"".join(message.encode() for message in messages)
        with self._send_lock:
            self._channel.sendall(encoded)


def _items(message: Message) -> list[WorkItem]:
    return [WorkItem(**item) for item in message.values["items"]]


class _LoadReporter:
    """Tells the server how far loading is: every stage and step, of bytes four in a second."""

    def __init__(self, send: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._send = send
        self._told_s = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._send("loading", {"stage": event.stage, "index": 0, "total": event.total})
        elif isinstance(event, StepDone):
            now = time.monotonic()
            if event.unit == "byte" and now - self._told_s < _BYTES_INTERVAL_S:
                return
            self._told_s = now
            self._send("loading", {"stage": event.stage, "index": event.index, "total": event.total})


def _ignore_signals() -> None:
    """Leave it to the server when to end: Ctrl-C and a service manager's SIGTERM may reach every process at once.

    A handler that does nothing, in place of SIG_IGN, which the programs that a pipeline starts would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _end_with_parent() -> None:
    """Let Linux kill this process with the one that started it, even while a library keeps Python from running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _configure_logging(levels: Mapping[str, int], *, is_json: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    if is_json:
        log_json_only(rank=int(os.environ.get("RANK", "0")))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _leave(code: int, *, with_group: bool = False) -> NoReturn:
    """End at once, whatever other threads do; ``with_group`` takes along what this process has started."""
    if with_group:  # without flushing: who would read may be gone, or another thread may hold the stream
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
