"""A server's life: listen, find and load the model behind it, serve, and end without losing anything."""

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import PluginError, RequestCancelledError
from ..options import Settings
from ..options.server import ServerOptions
from ..plugins import PluginManager
from .access_log import AccessListener
from .app import create_app, with_host_layers
from .auth import KeyRing, read_keys
from .event_loop import event_loop_factory
from .front import Front
from .logs import configure_format
from .server_settings import folders_of, refuse_settings_of_one_run, refuse_two_places
from .sockets import Listeners, open_listeners
from .tls import check_certificate

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.typing import Framework

    from .context import Server

logger = logging.getLogger(__name__)

#: Finds and plans the model and begins to load it.
OpenServer = Callable[[PluginManager, Settings, str, list[AccessListener]], Awaitable["Server"]]
#: After the last run has ended, its answer gets so long to go out.
_LAST_ANSWERS_S = 5.0
#: For what should take no time when a server is told to stop at once.
_AT_ONCE_S = 5.0
#: Longer than clients keep idle connections, so that it is not the server that hangs up on the next request.
_KEEP_ALIVE_S = 75


def run_server(manager: PluginManager, settings: Settings, open_server: OpenServer | None = None) -> None:
    """Serve until a signal says to stop. Call it in the main thread.

    :param open_server: another way to make the server behind the HTTP part.
    :raises SglangError: if the server can not start: a setting, the port, the model.
    """
    options = settings.of(ServerOptions)
    configure_format(options.log_format)
    for record in manager.failures:
        raise record.error or PluginError(f"plugin {record.name!r} does not load", "see 'sglang plugins list'")
    refuse_settings_of_one_run(settings)
    refuse_two_places(settings)
    folders_of(settings)
    keys = read_keys(options)
    check_certificate(options)
    listeners = open_listeners(options)
    try:
        if listeners.is_public and not keys:
            logger.warning(
                "everyone who reaches %s may use this server: it listens on a public address and asks for no key; "
                "set --api-key or --api-key-file, or --host 127.0.0.1",
                listeners.url,
            )
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(_Life(manager, settings, keys, listeners).live(open_server or default_open_server()))
    finally:
        listeners.close()


def default_open_server() -> OpenServer:
    """Return what makes the real server."""
    from .assembly import open_server  # planning, engine and jobs: the socket is open already

    return open_server


class _Life:
    def __init__(self, manager: PluginManager, settings: Settings, keys: KeyRing, listeners: Listeners) -> None:
        self._manager = manager
        self._settings = settings
        self._options = settings.of(ServerOptions)
        self._listeners = listeners
        self._front = Front()
        self._access_listeners: list[AccessListener] = []
        self._app = with_host_layers(self._front, self._options, keys, listeners, self._access_listeners)
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._close_http = asyncio.Event()

    async def live(self, open_server: OpenServer) -> None:
        """Serve from now until the end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_drop_connection)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        http = asyncio.create_task(self._serve_http())
        await asyncio.sleep(0)
        click.echo(f"sglang serve: listening on {self._listeners.url}")
        server: Server | None = None
        opening = asyncio.ensure_future(
            open_server(self._manager, self._settings, self._listeners.url, self._access_listeners)
        )
        try:
            if await self._is_done(opening, http):
                server = opening.result()
                self._front.app = create_app(server)
                await self._serve_model(server, http)
        finally:
            await self._end(server, opening, http)
        if self._stop_at_once.is_set():
            raise RequestCancelledError("stopped at once", "start it again: what was under way is in the job store")

    async def _serve_model(self, server: "Server", http: "asyncio.Task[None]") -> None:
        loading = asyncio.ensure_future(server.supervisor.wait_ready())
        try:
            if await self._is_done(loading, http):
                loading.result()
                # What is there now stays. Going through it again takes the collector tens of milliseconds, in the
                # middle of somebody's request.
                gc.collect()
                gc.freeze()
                logger.info("ready: %s", server.model_names[0])
                await self._is_done(None, http)
        finally:
            loading.cancel()

    async def _is_done(self, task: "asyncio.Future[Any] | None", http: "asyncio.Task[None]") -> bool:
        """Wait for a task, or for the end of the server; say which it was."""
        stopped = asyncio.create_task(self._stop.wait())
        waiting: set[asyncio.Future[Any]] = {stopped, http, *([task] if task is not None else [])}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if http.done():
            http.result()
        return task is not None and task.done() and not self._stop.is_set()

    async def _serve_http(self) -> None:
        from hypercorn.asyncio import serve  # 0.2 s: the socket is open already

        from .connections import use_connections

        use_connections()
        # Starlette's types of messages are wider than Hypercorn's.
        await serve(cast("Framework", self._app), self._http_config(), shutdown_trigger=self._close_http.wait)

    def _http_config(self) -> "Config":
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{one.detach()}" for one in self._listeners.sockets]
        config.certfile = _text(self._options.ssl_certfile)
        config.keyfile = _text(self._options.ssl_keyfile or self._options.ssl_certfile)
        config.keyfile_password = self._options.ssl_keyfile_password
        config.accesslog = None
        config.errorlog = logging.getLogger("sglang_core.server.http")
        config.errorlog.setLevel(logging.WARNING)
        config.include_server_header = False
        config.keep_alive_timeout = _KEEP_ALIVE_S
        config.graceful_timeout = self._options.graceful_timeout_s + _AT_ONCE_S
        return config

    def _signalled(self) -> None:
        if self._stop.is_set():
            logger.warning("stopping at once")
            self._stop_at_once.set()
            return
        logger.info(
            "stopping: waiting at most %g s for what runs; a second signal stops at once",
            self._options.graceful_timeout_s,
        )
        self._stop.set()

    async def _end(
        self, server: "Server | None", opening: "asyncio.Future[Server]", http: "asyncio.Task[None]"
    ) -> None:
        """Take no more requests, end what runs within the limit, keep the rest, and let the last answers out."""
        self._front.is_stopping = True
        self._close_http.set()
        if server is None:
            opening.cancel()
            await asyncio.wait({opening}, timeout=_AT_ONCE_S)
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                server = opening.result()  # it was made in the moment of the signal
        if server is not None:
            server.is_stopping = True
            has_failed = server.supervisor.state == "failed"
            grace_s = 0.0 if has_failed else self._options.graceful_timeout_s
            await self._close_server(server, grace_s)
        await asyncio.wait({http}, timeout=0 if self._stop_at_once.is_set() else _LAST_ANSWERS_S)
        http.cancel()
        await asyncio.wait({http}, timeout=1)

    async def _close_server(self, server: "Server", grace_s: float) -> None:
        from .assembly import close_server

        closing = asyncio.create_task(close_server(server, grace_s))
        at_once = asyncio.create_task(self._stop_at_once.wait())
        await asyncio.wait({closing, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            # With its processes gone nothing runs any more, so that the jobs can be closed.
            await server.supervisor.stop(0)
            await asyncio.wait({closing}, timeout=_AT_ONCE_S)
        at_once.cancel()
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing


def _text(path: "os.PathLike[str] | None") -> str | None:
    return None if path is None else os.fspath(path)


def _drop_connection(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Note what went wrong outside every request: mostly connections that speak no HTTP or no TLS."""
    error = context.get("exception")
    is_usual = isinstance(error, ssl.SSLError | ConnectionError | TimeoutError)
    is_connection = "client_connected_cb" in str(context.get("message"))
    logger.log(
        logging.DEBUG if is_usual else logging.WARNING,
        *("%s: %r", context.get("message"), error),
        exc_info=None if is_usual or is_connection else error,
    )
