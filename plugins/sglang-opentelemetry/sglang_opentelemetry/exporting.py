"""Exporters that say once that the collector is away, and once that it is back."""

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

logger = logging.getLogger(__name__)

# They tell of every attempt, with tracebacks; what an operator has to know is told here.
logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)


class _Notice:
    """Tells of a change, not of every attempt."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._is_away = False

    def note(self, is_sent: bool) -> None:
        if not is_sent and not self._is_away:
            logger.warning(
                "the collector does not take %s; what it misses is lost\nTry: see OTEL_EXPORTER_OTLP_ENDPOINT",
                self._signal,
            )
        elif is_sent and self._is_away:
            logger.info("the collector takes %s again", self._signal)
        self._is_away = not is_sent


class QuietSpanExporter(OTLPSpanExporter):
    """Sends spans."""

    def __init__(self) -> None:
        super().__init__()
        self._notice = _Notice("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; a collector that is away is noted once."""
        result = super().export(spans)
        self._notice.note(result is SpanExportResult.SUCCESS)
        return result


class QuietMetricExporter(OTLPMetricExporter):
    """Sends measurements."""

    def __init__(self) -> None:
        super().__init__()
        self._notice = _Notice("metrics")

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **more: Any
    ) -> MetricExportResult:
        """Send measurements; a collector that is away is noted once."""
        result = super().export(metrics_data, timeout_millis, **more)
        self._notice.note(result is MetricExportResult.SUCCESS)
        return result
