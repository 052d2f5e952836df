"""The switch for metrics."""

from attrs import frozen

from sglang_core import option


@frozen(kw_only=True)
class MetricsOptions:
    """Metrics."""

    enable_metrics: bool = option(default=False, help="Serve numbers for Prometheus at /metrics.")
