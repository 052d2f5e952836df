"""Lines of the log as JSON objects, and the fields that they share while something is done: the request, the job."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

_fields: ContextVar[dict[str, Any] | None] = ContextVar("sglang_log_fields", default=None)


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Have every JSON line that the body logs carry these fields, also from tasks and threads with its context."""
    token = _fields.set({**(_fields.get() or {}), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def add_log_fields(**fields: Any) -> None:
    """Add to the fields of the innermost :func:`log_fields` around the caller, if there is one.

    For what is found out on the way. Around each HTTP request of a server there is one, whose last line is that of the
    access log.
    """
    current = _fields.get()
    if current is not None:
        current.update(fields)


class JsonFormatter(logging.Formatter):
    """Writes each record as one JSON object; a record's ``fields`` become keys of their own.

    :param fields: what every line of this process says.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self._own = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._own,
            **(_fields.get() or {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False, default=str)


def is_json_log() -> bool:
    """Say whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def log_json_only(**fields: Any) -> None:
    """Let everything that this process logs be JSON from now on, also what goes other ways than the host's.

    Libraries give their loggers handlers of their own; warnings and exceptions that nobody catches are printed. What is
    printed by hand stays as it is. To be called before the libraries are imported.

    :param fields: what every line says.
    """
    formatter = JsonFormatter(**fields)

    class JsonLogger(logging.Logger):
        """A logger whose handlers write JSON to the terminal's streams, whoever adds them."""

        def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the name in the base class
            """Add a handler."""
            _set_formatter(hdlr, formatter)
            super().addHandler(hdlr)

    logging.setLoggerClass(JsonLogger)
    for handler in logging.getLogger().handlers:
        _set_formatter(handler, formatter)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _set_formatter(handler: logging.Handler, formatter: logging.Formatter) -> None:
    stream: TextIO | None = getattr(handler, "stream", None)
    if stream is not None and stream in (sys.stderr, sys.stdout):
        handler.setFormatter(formatter)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("sglang_core").critical("the process ends: %r", error, exc_info=(kind, error, trace))


def _log_uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread is not None else "?"
        error = ended.exc_value
        message = "the thread %s ends: %r"
        logging.getLogger("sglang_core").error(message, name, error, exc_info=(type(error), error, error.__traceback__))
