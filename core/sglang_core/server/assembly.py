"""What stands behind the HTTP part: the model's plan, its processes, the jobs, the storage."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ..engine.request_scheduler import RequestScheduler
from ..engine.supervisor import Supervisor
from ..generation import warn_of
from ..jobs.opening import open_job_store
from ..jobs.service import JobService
from ..options import Settings
from ..options.engine import EngineOptions
from ..options.jobs import JobOptions
from ..options.server import ServerOptions
from ..planning import plan_run
from ..plugins import PluginManager
from ..storage import OpenStorage
from ..uploads import open_storage
from .access_log import AccessListener
from .context import Server
from .server_settings import folders_of, for_ranks

T = TypeVar("T")
#: For the model's processes to leave by themselves.
_LAST_WORDS_S = 5.0


async def open_server(
    manager: PluginManager, settings: Settings, url: str, access_listeners: list[AccessListener]
) -> Server:
    """Find and plan the model, open the job store and the storage, and begin to load; the loading goes on behind.

    :raises SglangError: for whatever can not work; nothing is left open then.
    """
    options, engine_options = settings.of(ServerOptions), settings.of(EngineOptions)
    output_folder, input_folder = folders_of(settings)
    plan = (await in_thread(partial(plan_run, manager, settings, may_lack_inputs=True))).plan
    warn_of(plan.warnings)
    storage = await in_thread(partial(_open_storage, manager, settings))
    try:
        supervisor = Supervisor(manager, for_ranks(settings))
        request_defaults: dict[str, Any] = {}
        # The jobs plan by way of the server, which is made of them.
        jobs = JobService(
            store=await in_thread(partial(open_job_store, manager, settings.of(JobOptions), output_folder)),
            supervisor=supervisor,
            scheduler=RequestScheduler(engine_options.max_queue, max_queue_per_owner=engine_options.max_queue_per_key),
            storage=storage,
            output_folder=output_folder,
            input_folder=input_folder,
            options=settings.of(JobOptions),
            replan=lambda values: server.replan(values),
            max_batch=engine_options.batching_max_size,
            batching_delay_s=engine_options.batching_delay_ms / 1000,
            is_interleaving=engine_options.interleaving,
            request_defaults=request_defaults,
        )
    except BaseException:
        if storage is not None:
            storage.close()
        raise
    server = Server(
        manager=manager,
        settings=settings,
        options=options,
        plan=plan,
        supervisor=supervisor,
        jobs=jobs,
        storage=storage,
        output_folder=output_folder,
        input_folder=input_folder,
        url=url,
        access_listeners=access_listeners,
        request_defaults=request_defaults,
    )
    try:
        await supervisor.start()
        await jobs.start()
    except BaseException:
        await close_server(server, 0)
        raise
    return server


async def close_server(server: Server, grace_s: float) -> None:
    """End what runs within ``grace_s`` seconds, keep the rest for the next start, and free everything."""
    await server.jobs.stop(grace_s)
    await server.supervisor.stop(min(grace_s, _LAST_WORDS_S))
    if server.storage is not None:
        server.storage.close()


def _open_storage(manager: PluginManager, settings: Settings) -> OpenStorage | None:
    """Open the storage and see that it works, so that its first job is not the one to find out."""
    storage = open_storage(manager, settings)
    if storage is not None:
        try:
            storage.check()
        except BaseException:
            storage.close()
            raise
    return storage


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function that blocks in a thread of its own, which does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[], None]) -> None:
        if not done.cancelled():
            set_it()

    def work() -> None:
        try:
            result = function()
        except BaseException as error:
            set_it: Callable[[], None] = partial(done.set_exception, error)
        else:
            set_it = partial(done.set_result, result)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, set_it)

    threading.Thread(target=work, name="open-server", daemon=True).start()
    return await done
