"""Where spans and measurements go: what the program has set up, else the collector of the ``OTEL_...`` variables."""

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from .exporting import QuietMetricExporter, QuietSpanExporter

_SCOPE = "sglang"
#: How long the end of a process waits for the collector to take what is left.
_LAST_WORDS_S = 3.0
_shut_downs: list[Callable[[], None]] = []


@cache
def tracer() -> trace.Tracer:
    """Return what makes the spans of this process."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one up
        made = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        made.add_span_processor(BatchSpanProcessor(QuietSpanExporter()))
        _shut_down_at_exit(made.shutdown)
        provider = made
    return provider.get_tracer(_SCOPE, version("sglang-plugins"))


@cache
def meter() -> metrics.Meter:
    """Return what makes the instruments of this process."""
    provider = metrics.get_meter_provider()
    if type(provider).__name__ == "_ProxyMeterProvider":  # nobody has set one up; the class is not public
        reader = PeriodicExportingMetricReader(QuietMetricExporter())
        made = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)
        _shut_down_at_exit(made.shutdown)
        provider = made
    return provider.get_meter(_SCOPE, version("sglang-plugins"))


def _resource() -> Resource:
    """Return who we are; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` know better."""
    own = {SERVICE_NAME: "sglang", SERVICE_VERSION: version("sglang-plugins")}
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {pair.partition("=")[0].strip() for pair in given.split(",")}
    if os.environ.get("OTEL_SERVICE_NAME"):
        named.add(SERVICE_NAME)
    return Resource.create({name: value for name, value in own.items() if name not in named})


def _shut_down_at_exit(shut_down: Callable[[], None]) -> None:
    if not _shut_downs:
        atexit.register(_say_last_words)
    _shut_downs.append(shut_down)


def _say_last_words() -> None:
    """Send what is left when the process ends, without waiting long for a collector that is away."""
    deadline = time.monotonic() + _LAST_WORDS_S
    threads = [threading.Thread(target=each, name="last-telemetry", daemon=True) for each in _shut_downs]
    with suppress(RuntimeError):  # an interpreter that starts no threads any more
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
