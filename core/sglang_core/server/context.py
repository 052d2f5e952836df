"""What the parts of a running server know of each other."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from ..engine.request_settings import RequestSettings
from ..options import Settings
from ..options.host import ModelOptions, RunOptions
from ..options.server import ServerOptions
from ..planning import backends_that_take, replan_requests
from ..planning_types import ExecutionPlan
from ..plugins import PluginManager
from .access_log import AccessListener
from .auth import ApiKey
from .discovery import DiscoveryRoutes
from .request_limits import check_plan, check_settings

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..engine.supervisor import Supervisor
    from ..jobs.service import JobService
    from ..storage import OpenStorage
    from .parts import RouteGroup

HealthStatus = Literal["ok", "starting", "restarting", "failed", "stopping", "degraded"]
#: What the state of the engine means for a client.
_STATUS_OF: Mapping[str, HealthStatus] = {
    "ready": "ok",
    "starting": "starting",
    "restarting": "restarting",
    "failed": "failed",
    "stopped": "stopping",
}


@frozen
class Health:
    """Whether a request would run now, and why not."""

    status: HealthStatus
    reason: str = ""
    remedy: str = ""

    @property
    def is_ready(self) -> bool:
        """Say whether a request would run."""
        return self.status == "ok"

    def to_json(self) -> dict[str, str]:
        """Return the answer of ``/health``."""
        if self.is_ready:
            return {"status": self.status}
        return {"status": self.status, "reason": self.reason, "remedy": self.remedy}


@define(kw_only=True, eq=False)
class Server:
    """A server whose model is planned: what routes and middleware are built with.

    ``settings`` are those of the command. ``output_folder`` and ``input_folder`` are absolute; every file that a
    request makes or brings lies below them.

    What wants to know of requests, of finished jobs or of everything that happens to jobs puts a function into
    ``access_listeners``, ``jobs.listeners`` or ``jobs.event_listeners``.
    """

    manager: PluginManager
    settings: Settings
    options: ServerOptions
    plan: ExecutionPlan
    supervisor: "Supervisor"
    jobs: "JobService"
    storage: "OpenStorage | None"
    output_folder: Path
    input_folder: Path
    #: Where the server listens, for people and for URLs where a request names no host.
    url: str
    #: Seconds since the epoch.
    started_at: float = field(factory=time.time)
    #: Called after each HTTP request, in the event loop: they must be quick.
    access_listeners: list[AccessListener] = field(factory=list)
    is_stopping: bool = False
    #: What :meth:`follow` has set: settings of every request that does not say otherwise.
    request_defaults: dict[str, Any] = field(factory=dict)
    _request_settings: RequestSettings = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._request_settings = RequestSettings(self.manager, self.settings)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names that clients may call the model by, the shown one first."""
        return self.options.served_model_name or (self.settings.of(ModelOptions).model_path,)

    def replan(self, values: Mapping[str, Any]) -> ExecutionPlan:
        """Return the plan for a request, without running it; ``values`` are its settings by name.

        :raises SglangError: for what can not be served, which a client is answered with status 400.
        """
        check_settings(self.options, values)
        settings = self._request_settings.of({**self.request_defaults, **values})
        plan = replan_requests(self.manager, self.plan, settings)
        check_plan(self.options, plan, self.settings.of(RunOptions).timeout_s)
        return plan

    async def follow(self, values: Mapping[str, Any]) -> None:
        """Have requests run with these settings from now on, where they do not say otherwise; what runs keeps its own.

        They are planned first, then the ranks get ready for them in their turn.

        :param values: settings by name, of groups with ``is_per_request``.
        :raises SglangError: if that can not be; requests go on with the settings of before then.
        """
        wanted = {**self.request_defaults, **values}
        settings = self._request_settings.of(wanted)
        await asyncio.to_thread(replan_requests, self.manager, self.plan, settings, may_lack_inputs=True)
        await self.supervisor.follow(wanted)
        self.request_defaults.update(values)

    def backends_that_take_images(self) -> tuple[str, ...]:
        """Return the names of the backends that would start this model from an image."""
        return backends_that_take(self.manager, self.settings, self.plan.model, image=True, mask=False)

    def health(self) -> Health:
        """Return whether a request would run now."""
        if self.is_stopping:
            return Health("stopping", "the server is stopping", "send the request to another server")
        status = _STATUS_OF[self.supervisor.state]
        if status != "ok":
            reason = self.supervisor.reason or _loading(self.supervisor.loading)
            return Health(status, reason, self.supervisor.remedy or "wait a moment")
        problem = self.jobs.statistics().problem
        return Health("degraded", problem, "see the log of the server") if problem else Health("ok")

    @property
    def route_groups(self) -> "tuple[RouteGroup, ...]":
        """Return the groups of routes in their order: the host's own, then those of the plugins."""
        return (DiscoveryRoutes(), *sorted(self.manager.routes, key=lambda group: group.order))

    def api_key_of(self, request: "Request") -> ApiKey | None:
        """Return the key of a request; ``None`` on a server without keys."""
        key: ApiKey | None = request.scope["state"].get("api_key")
        return key

    def url_for(self, request: "Request", path: str) -> str:
        """Return the absolute URL of a path of this server, as the client of ``request`` can reach it.

        It begins with ``--public-url`` if that is set, else with the host that the request named: one that was
        checked against ``--trusted-host``.
        """
        if self.options.public_url is not None:
            return self.options.public_url.rstrip("/") + path
        host = request.headers.get("host")
        return f"{request.url.scheme}://{host}{path}" if host else self.url + path


def _loading(step: Mapping[str, Any]) -> str:
    """Say how far the loading of the model is."""
    done, total = step.get("index"), step.get("total")
    share = f" ({100 * done / total:.0f} %)" if done and total else ""
    return f"the model is being loaded: {step['stage']}{share}" if step.get("stage") else "the model is being loaded"
