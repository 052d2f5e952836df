"""The endpoints for adapters, in front of the transform ``lora``."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sglang_core import ApiError, ControllableTransform, requires

from .bodies import read_request
from .requests import MergeLoraRequest, SetLoraRequest, UnmergeLoraRequest

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import Server

#: The name of the pipeline transform that loads adapters.
TRANSFORM = "lora"


def lora_routes(server: "Server") -> "Sequence[BaseRoute]":
    """Return the four routes; they need the scope ``admin``."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @requires("admin")
    async def set_lora(request: "Request") -> "Response":
        fields = await read_request(request, SetLoraRequest)
        if fields.merge_mode == "dynamic":
            message = "'merge_mode' is 'dynamic', and adapters are always merged into the weights: leave it out"
            raise ApiError(400, message, param="merge_mode", code="unsupported_parameter")
        values = {
            "nicknames": fields.lora_nickname,
            "paths": fields.lora_path,
            "targets": fields.target,
            "strengths": fields.strength,
            "alphas": fields.lora_alpha,
        }
        return await change("set", values)

    @requires("admin")
    async def merge(request: "Request") -> "Response":
        fields = await read_request(request, MergeLoraRequest)
        return await change("merge", {"target": fields.target, "strength": fields.strength})

    @requires("admin")
    async def unmerge(request: "Request") -> "Response":
        fields = await read_request(request, UnmergeLoraRequest)
        return await change("unmerge", {"target": fields.target})

    @requires("admin")
    async def list_loras(request: "Request") -> "Response":
        transform = _transform(server)
        if transform is None:
            return JSONResponse({"loaded_adapters": [], "active": {}})
        return JSONResponse(await transform.control(server, "list", {}))

    async def change(action: str, values: Mapping[str, Any]) -> "Response":
        transform = _transform(server)
        if transform is None:
            message = "this server loads no LoRA adapters: its plugin 'lora' is not there"
            raise ApiError(400, message, code="lora_not_supported")
        return JSONResponse({"status": "ok", **await transform.control(server, action, values)})

    posts: dict[str, Callable[[Request], Coroutine[Any, Any, Response]]] = {
        "/v1/set_lora": set_lora,
        "/v1/merge_lora_weights": merge,
        "/v1/unmerge_lora_weights": unmerge,
    }
    routes: list[BaseRoute] = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    return [*routes, Route("/v1/list_loras", list_loras, methods=["GET"])]


def _transform(server: "Server") -> ControllableTransform | None:
    transforms = server.manager.pipeline_transforms
    found: object = transforms.get(TRANSFORM) if TRANSFORM in transforms else None
    return found if isinstance(found, ControllableTransform) else None
