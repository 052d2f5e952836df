"""What a client is told when something goes wrong, always in the shape of OpenAI's API."""

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import fields

from ..errors import (
    ConfigError,
    ConflictError,
    DeadlineExceededError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfDeviceMemoryError,
    OutputError,
    PluginError,
    RequestCancelledError,
    RequestError,
    SglangError,
    UnavailableError,
)
from ..options.host import SamplingOptions

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

logger = logging.getLogger(__name__)

#: Status and ``code`` of each error that a request can end with. Never one that clients repeat by themselves (429 and
#: those from 500 on) for what would fail again.
STATUSES: Mapping[type[SglangError], tuple[int, str]] = {
    ConfigError: (400, "invalid_request"),
    RequestError: (400, "invalid_request"),
    UnavailableError: (400, "unavailable"),
    OutOfDeviceMemoryError: (400, "out_of_memory"),
    ModelNotFoundError: (404, "model_not_found"),
    ConflictError: (409, "conflict"),
    RequestCancelledError: (409, "cancelled"),
    PluginError: (500, "internal_error"),
    ModelLoadError: (503, "model_not_loaded"),
    DeadlineExceededError: (504, "deadline_exceeded"),
    OutputError: (507, "output_not_written"),
}
#: What a problem begins with that is one setting's.
_LEADING_NAME = re.compile(r"([a-z][a-z0-9_]*)[: ]")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TITLES = {
    404: ("there is nothing at this address", "not_found"),
    405: ("this address does not take this method", "method_not_allowed"),
    413: ("the body of the request is too large", "body_too_large"),
}


class ApiError(Exception):
    """An answer that is an error.

    :param status: the HTTP status.
    :param message: one sentence for the client, with what would help.
    :param param: the field of the request that is wrong.
    :param code: one word for programs.
    :param type: OpenAI's kind of error; by the status if empty.
    :param headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = "",  # noqa: A002 - the word of the API
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type or _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> "JSONResponse":
        """Return the answer."""
        from starlette.responses import JSONResponse  # the server runs: Starlette is loaded

        return JSONResponse(self.to_json(), status_code=self.status, headers=self.headers)


def api_error(error: SglangError, request_id: str = "") -> ApiError:
    """Return what a client is told of an error; what is the server's own affair (status 500 and up) goes to the log."""
    status, code = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), (500, "internal_error"))
    retry_after_s = getattr(error, "retry_after_s", None)
    if isinstance(retry_after_s, int | float):  # the queue is full
        return too_many_requests(f"{error.problem}; {error.remedy}", retry_after_s, code="queue_full")
    if status >= 500:
        logger.error("request %s: %s (%s)", request_id or "-", error.problem, error.remedy)
        return ApiError(status, f"the server can not do this now: {_REASONS[code]}{_see(request_id)}", code=code)
    return ApiError(status, f"{error.problem}; try: {error.remedy}", param=_param(error.problem), code=code)


def _param(problem: str) -> str | None:
    """Return the field of a request that a problem is about, if it begins with its name."""
    name = _LEADING_NAME.match(problem)
    known = {"webhook_url", *(field.name for field in fields(SamplingOptions))}
    return name[1] if name and name[1] in known else None


_REASONS = {
    "internal_error": "something failed inside",
    "model_not_loaded": "the model is not loaded",
    "deadline_exceeded": "the time given to the request is over",
    "output_not_written": "the result can not be written",
}


def too_many_requests(message: str, retry_after_s: float, code: str = "rate_limit_exceeded") -> ApiError:
    """Return the answer that asks a client to come back later."""
    seconds = max(1, int(-(-retry_after_s // 1)))
    return ApiError(429, message, code=code, headers={"Retry-After": str(seconds)})


def internal_error(request_id: str) -> ApiError:
    """Return what a client is told of a defect: where to look, and nothing else."""
    return ApiError(500, f"something failed inside the server{_see(request_id)}", code="internal_error")


def _see(request_id: str) -> str:
    return f"; the server's log has it as request {request_id}" if request_id else ""


def request_id_of(request: "Request") -> str:
    """Return the id of a request, as its answer and the log have it."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def answer_api_error(request: "Request", error: Exception) -> "Response":
    """Answer an :class:`ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


def answer_sglang_error(request: "Request", error: Exception) -> "Response":
    """Answer an :class:`~sglang_core.SglangError`."""
    assert isinstance(error, SglangError)
    return api_error(error, request_id_of(request)).response()


def answer_http_exception(request: "Request", error: Exception) -> "Response":
    """Answer what Starlette itself refuses: unknown paths, wrong methods, bodies that can not be parsed."""
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException)
    message, code = _TITLES.get(error.status_code, (str(error.detail), None))
    if error.status_code in {404, 405}:
        message = f"{message}: {request.method[:20]} {request.url.path[:200]}"
    return ApiError(error.status_code, message, code=code, headers=dict(error.headers or {})).response()


def answer_defect(request: "Request", error: Exception) -> "Response":
    """Answer an exception that nobody expected; its traceback goes to the log."""
    request_id = request_id_of(request)
    request.scope["state"]["is_logged"] = True  # it travels on, to a layer that would log it again
    logger.error("request %s failed: %s %s", request_id, request.method[:20], request.url.path[:200], exc_info=error)
    return internal_error(request_id).response()


def answer_disconnect(request: "Request", error: Exception) -> "Response":
    """Answer a client that went away while it was sending; nobody reads it."""
    return ApiError(400, "the body of the request is not complete", code="incomplete_body").response()
