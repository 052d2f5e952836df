"""``sglang serve`` with everything real but the engine and the jobs, which do what a test tells them.

As a program it takes the words behind ``sglang serve``. Files in the folder ``SCRIPT`` tell the engine what to do:
``state`` holds its state and reason, ``fail`` why loading fails; while ``planning`` is there, planning goes on.
"""

import asyncio
import os
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

from attrs import evolve
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from sglang_core import Job, ModelLoadError, OutputError, RequestError, create_plugin_manager, hookimpl, requires
from sglang_core.jobs.service import JobStatistics
from sglang_core.options.server import ServerOptions
from sglang_core.planning import plan_run
from sglang_core.server import assembly, run
from sglang_core.server.context import Server
from sglang_core.server.server_settings import folders_of
from sglang_core.testing import no_op_plugin

SCRIPT = Path(os.environ["SCRIPT"])


def script(name, default=""):
    path = SCRIPT / name
    return path.read_text() if path.exists() else default


class ScriptedSupervisor:
    num_restarts = 0
    loading = {"stage": "fetch", "index": 25, "total": 100}  # noqa: RUF012 - read only
    remedy = "wait a moment"

    @property
    def state(self):
        return script("state", "ready").split(":")[0]

    @property
    def reason(self):
        return script("state").partition(":")[2]

    async def wait_ready(self):
        while self.state != "ready":
            if script("fail"):
                raise ModelLoadError(script("fail"), "use another model")
            await asyncio.sleep(0.01)

    async def stop(self, grace_s):
        if not (SCRIPT / "supervisor_stopped").exists():
            (SCRIPT / "supervisor_stopped").write_text(str(grace_s))
        if grace_s == 0:  # without its processes nothing runs any more
            (SCRIPT / "running").unlink(missing_ok=True)


class ScriptedJobs:
    """One job runs while the file ``running`` is there."""

    async def stop(self, grace_s):
        deadline = time.monotonic() + grace_s
        while (SCRIPT / "running").exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - files are how a test speaks
            await asyncio.sleep(0.01)
        (SCRIPT / "jobs_stopped").write_text("parked" if (SCRIPT / "running").exists() else "finished")

    def __init__(self):
        self.listeners = []

    def statistics(self):
        return JobStatistics(
            queued=2,
            running=1,
            totals={"completed": 3},
            waiting_webhooks=0,
            waiting_uploads=0,
            problem=script("problem"),
        )


class TestRoutes:
    name = "scripted"
    order = 10

    def describe(self, server):
        return {}

    def routes(self, server):
        async def echo(request):
            body = await request.body()
            return JSONResponse({"num_bytes": len(body), "key": getattr(server.api_key_of(request), "name", None)})

        async def url(request):
            return JSONResponse({"url": server.url_for(request, "/v1/x")})

        async def boom(request):
            raise RuntimeError("secret detail 4711")

        async def wrong(request):
            raise RequestError("width: it is 7, and no multiple of 8", "use 8")

        async def full(request):
            raise OutputError("/srv/outputs is full", "free some space")

        async def early(request):
            return PlainTextResponse("not read")

        async def replan(request):
            plan = server.replan(await request.json())
            return JSONResponse({"width": plan.requests[0].width, "num_requests": len(plan.requests)})

        async def modules(request):
            return JSONResponse(sorted(sys.modules))

        async def slow(request):
            (SCRIPT / "slow_began").touch()
            while (SCRIPT / "running").exists():  # noqa: ASYNC110 - files are how a test speaks
                await asyncio.sleep(0.01)
            return PlainTextResponse("done")

        async def stream(request):
            async def chunks():
                for number in range(1000):
                    yield f"{number}\n"
                    await asyncio.sleep(0.01)

            return StreamingResponse(chunks())

        async def pieces(request):
            async def chunks():
                for number in range(120):
                    yield bytes([number % 256]) * (1 + number * 977 % 150_000)

            return StreamingResponse(chunks())

        async def finish(request):
            job = Job(id="j", kind="image", operation="x", created_at=100.0, settings={}, status="completed")
            job = evolve(job, started_at=102.0, completed_at=107.0, timings_s={"denoise": 4.5})
            for listener in server.jobs.listeners:
                listener(job)
            return PlainTextResponse("ok")

        @requires("admin")
        async def admin(request):
            return PlainTextResponse("admin")

        every = ["GET", "POST"]
        return [
            Route("/test/echo", echo, methods=every),
            Route("/test/url", url),
            Route("/test/modules", modules),
            Route("/test/boom", boom, methods=every),
            Route("/test/wrong", wrong),
            Route("/test/full", full),
            Route("/test/early", early, methods=every),
            Route("/test/replan", replan, methods=["POST"]),
            Route("/test/slow", slow, methods=every),
            Route("/test/stream", stream),
            Route("/test/pieces", pieces),
            Route("/test/finish", finish, methods=["POST"]),
            Route("/test/admin", admin, methods=every),
            Route("/test/items/{item}", early, methods=["GET", "DELETE"]),
        ]


class ScriptedPlugin:
    @hookimpl
    def sglang_register_routes(self):
        return [TestRoutes()]


async def open_server(manager, settings, url, access_listeners):
    output_folder, input_folder = folders_of(settings)

    def plan():
        while (SCRIPT / "planning").exists():
            time.sleep(0.01)
        return plan_run(manager, settings, may_lack_inputs=True).plan

    return Server(
        manager=manager,
        settings=settings,
        options=settings.of(ServerOptions),
        plan=await assembly.in_thread(plan),
        supervisor=ScriptedSupervisor(),
        jobs=ScriptedJobs(),
        storage=None,
        output_folder=output_folder,
        input_folder=input_folder,
        url=url,
        access_listeners=access_listeners,
    )


def main():
    from sglang_core.cli import app

    def create(**_):
        manager = create_plugin_manager(only_built_ins=True)
        manager.register(no_op_plugin(order=-1), "no_op")
        manager.register(ScriptedPlugin(), "scripted")
        if "SCRIPT_BROKEN" in os.environ:
            manager.load_entry_point(EntryPoint("broken", "no_such_module_at_all", "sglang.plugins"))
        for module in filter(None, os.environ.get("SCRIPT_PLUGINS", "").split(",")):
            if module not in manager.records:
                manager.register(__import__(f"sglang_plugins_builtin.{module}", fromlist=["x"]), module)
        return manager

    app.create_plugin_manager = create
    run.default_open_server = lambda: open_server
    app.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
