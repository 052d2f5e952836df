"""What OpenTelemetry's own variables ask for, read without importing it."""

import logging
import os
from functools import cache
from typing import Literal

logger = logging.getLogger(__name__)

Signal = Literal["traces", "metrics"]


@cache
def asks_for(signal: Signal) -> bool:
    """Say whether somebody wants a signal to be sent: an endpoint is set for it, or the exporter ``otlp``.

    What can not be followed is reported in a warning.
    """
    if _value("OTEL_SDK_DISABLED").lower() == "true":
        return False
    name = f"OTEL_{signal.upper()}_EXPORTER"
    exporters = {word.strip() for word in _value(name).lower().split(",")} - {""}
    others = exporters - {"otlp", "none"}
    if others:
        logger.warning("%s=%s: %s are sent by otlp only\nTry: %s=otlp, or none", name, _value(name), signal, name)
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    is_asked_for = "otlp" in exporters if exporters else any(_value(endpoint) for endpoint in endpoints)
    return is_asked_for and _speaks_http(signal)


def _speaks_http(signal: Signal) -> bool:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = _value(name).lower()
        if protocol == "http/protobuf":
            return True
        if protocol:
            logger.warning(
                "%s=%s: %s are sent by http/protobuf only, so none are\nTry: %s=http/protobuf, and the port for it",
                *(name, protocol, signal, name),
            )
            return False
    return True


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()
