"""The routes by which programs find out what this server is and whether it works."""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from attrs import asdict

from ..options.host import ModelOptions
from ..plugins import OWN_DISTRIBUTION
from .auth import requires

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from .context import Server


class DiscoveryRoutes:
    """``/liveness``, ``/health`` and what describes model and server."""

    name = "discovery"
    order = 0

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        @requires("open")
        async def liveness(request: "Request") -> "Response":
            return JSONResponse({"status": "ok"})

        @requires("open")
        async def health(request: "Request") -> "Response":
            answer = server.health()
            headers = {} if answer.is_ready else {"Retry-After": "1"}
            return JSONResponse(answer.to_json(), status_code=200 if answer.is_ready else 503, headers=headers)

        @requires("key")
        async def model_info(request: "Request") -> "Response":
            return JSONResponse(describe_model_served(server))

        @requires("key")
        async def server_info(request: "Request") -> "Response":
            return JSONResponse(describe_server(server))

        @requires("key")
        async def models(request: "Request") -> "Response":
            return JSONResponse(describe_plan(server))

        @requires("key")
        async def stats(request: "Request") -> "Response":
            return JSONResponse(describe_load(server))

        return [
            Route("/liveness", liveness),
            Route("/health", health),
            Route("/health_generate", health),
            Route("/model_info", model_info),
            Route("/v1/model_info", model_info),
            Route("/server_info", server_info),
            Route("/models", models),
            Route("/stats", stats),
        ]

    def describe(self, server: "Server") -> Mapping[str, Mapping[str, Any]]:
        """Return the OpenAPI items of these routes."""
        summaries = {
            "/liveness": "Whether the process answers.",
            "/health": "Whether a request would run: 200, or 503 with the reason.",
            "/health_generate": "The same as /health; nothing is generated.",
            "/model_info": "What the model takes and makes.",
            "/v1/model_info": "The same as /model_info.",
            "/server_info": "Version, model and state of the server.",
            "/models": "How the model is loaded.",
            "/stats": "How much there is to do.",
        }
        return {path: {"get": _operation(path, summary)} for path, summary in summaries.items()}


def _operation(path: str, summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    if path.startswith("/health"):
        responses["503"] = {"description": "A request would not run now.", "content": content}
    return {"operationId": f"get{path.replace('/', '_')}", "summary": summary, "responses": responses}


def task_types(server: "Server") -> list[str]:
    """Return what the model does, the main thing first: ``T2I``, ``I2I``, ``T2V`` or ``I2V``."""
    call = server.plan.call
    letter = "V" if server.plan.kind == "video" else "I"
    found = [] if "image" in call.required else [f"T2{letter}"]
    return [*found, f"I2{letter}"] if call.takes_image else found


def describe_model_served(server: "Server") -> dict[str, Any]:
    """Return the answer of ``/model_info``."""
    tasks = task_types(server)
    return {
        "model_path": server.settings.of(ModelOptions).model_path,
        "served_model_name": server.model_names[0],
        "is_generation": True,
        "model_type": "diffusion",
        "architectures": [server.plan.model.pipeline_class],
        "has_image_understanding": any(task.startswith("I2") for task in tasks),
        "has_audio_understanding": False,
        "task_type": tasks[0],
        "supported_task_types": tasks,
        "output_types": [server.plan.kind],
        "is_image_gen": server.plan.kind == "image",
    }


def describe_server(server: "Server") -> dict[str, Any]:
    """Return the answer of ``/server_info``."""
    try:
        own_version = version(OWN_DISTRIBUTION)
    except PackageNotFoundError:  # running from a source tree
        own_version = "unknown"
    health = server.health()
    return {
        "model_path": server.settings.of(ModelOptions).model_path,
        "served_model_name": server.model_names[0],
        "model_aliases": list(server.model_names[1:]),
        "tp_size": 1,
        "dp_size": 1,
        "version": own_version,
        "status": health.status,
        "backend": server.plan.backend.value,
        "device": server.plan.device.value,
        "uptime_s": round(time.time() - server.started_at, 3),
        "limits": {
            "max_body_bytes": server.options.max_body_bytes,
            "max_pixels": server.options.max_pixels,
            "max_frames": server.options.max_frames,
            "max_steps": server.options.max_steps,
            "max_outputs": server.options.max_outputs,
        },
    }


def describe_plan(server: "Server") -> dict[str, Any]:
    """Return the answer of ``/models``."""
    precisions = {name: part.precision.value for name, part in server.plan.components.items()}
    tasks = task_types(server)
    return {
        "model_path": server.settings.of(ModelOptions).model_path,
        "num_gpus": 0 if server.plan.device.value == "cpu" else 1,
        "task_type": tasks[0],
        "supported_task_types": tasks,
        "dit_precision": precisions.get("transformer") or precisions.get("unet"),
        "vae_precision": precisions.get("vae"),
        "pipeline_name": server.plan.backend.value,
        "pipeline_class": server.plan.model.pipeline_class,
    }


def describe_load(server: "Server") -> dict[str, Any]:
    """Return the answer of ``/stats``."""
    jobs = asdict(server.jobs.statistics())
    return {"status": "ok", "model_path": server.settings.of(ModelOptions).model_path, "jobs": jobs}
