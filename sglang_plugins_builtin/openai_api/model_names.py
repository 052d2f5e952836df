"""The models that this server has: one, under the names that it answers to."""

from typing import TYPE_CHECKING, Any

from sglang_core import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import CallDescription, Server

_SHOWN = 5


def check_model(server: "Server", name: object) -> None:
    """Refuse a model that this server has not.

    :raises ApiError: 404 ``model_not_found``.
    """
    if isinstance(name, str) and name not in server.model_names:
        names = ", ".join(repr(known) for known in server.model_names[:_SHOWN])
        message = (
            f"the model {name[:100]!r} is not served here, but {names}: use one of these names, or leave 'model' out "
            "(--served-model-name gives further ones when the server is started)"
        )
        raise ApiError(404, message, param="model", code="model_not_found")


def model_card(server: "Server", name: str) -> dict[str, Any]:
    """Return what OpenAI's ``Model`` says of the model under one of its names, with further fields beside."""
    plan = server.plan
    return {
        "id": name,
        "object": "model",
        "created": int(server.started_at),
        "owned_by": "sglang",
        "root": server.model_names[0],
        "parent": None,
        "output_kind": plan.kind,
        "takes_images": plan.call.takes_image,
        "takes_mask": plan.call.takes_mask,
        "needs_image": "image" in plan.call.required,
        "max_images": (plan.call.for_inputs(image=True, mask=False) or plan.call).max_images,
        "pipeline_class": plan.model.pipeline_class,
        "defaults": {
            name: value
            for name, value in plan.requests[0].to_json().items()
            if name not in {"prompt", "seed", "image_path", "mask_path", "extra"}
        },
        "parameters": sorted({name for call in _calls(plan.call) for name in call.parameters}),
        "multiple_of": plan.call.multiple_of,
        "frames_step": plan.call.frames_step,
    }


def _calls(call: "CallDescription") -> "list[CallDescription]":
    return [each for each in (call, call.with_image, call.with_mask) if each is not None]


def model_routes(server: "Server") -> "Sequence[BaseRoute]":
    """Return the routes of the list and of each model; a name may have slashes."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def list_models(request: "Request") -> "Response":
        return JSONResponse({"object": "list", "data": [model_card(server, name) for name in server.model_names]})

    async def retrieve_model(request: "Request") -> "Response":
        name = request.path_params["model"]
        check_model(server, name)
        return JSONResponse(model_card(server, name))

    return [
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", retrieve_model, methods=["GET"]),
    ]
