"""A collector of OpenTelemetry: takes OTLP over HTTP, decodes it, and keeps what it was sent."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from http_process import DEADLINE_S, wait_for
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span:
    """A span in plain values; ids are hexadecimal, ``parent`` is empty for a root."""

    def __init__(self, raw, resource, scope):
        self.name = raw.name
        self.trace, self.id, self.parent = raw.trace_id.hex(), raw.span_id.hex(), raw.parent_span_id.hex()
        self.start, self.end = raw.start_time_unix_nano, raw.end_time_unix_nano
        self.attributes = plain(raw.attributes)
        self.is_error = raw.status.code == 2
        self.message = raw.status.message
        self.kind = raw.kind
        self.events = [(event.name, plain(event.attributes)) for event in raw.events]
        self.resource, self.scope = resource, scope

    def __repr__(self):
        return f"{self.name}({self.attributes})"


class Collector:
    """Listens on loopback while it is used as a context manager. ``is_silent``: it takes requests and never answers."""

    def __init__(self):
        self.spans = []
        self.metrics = {}
        self.headers = []
        self.is_silent = threading.Event()
        self._is_over = threading.Event()

    def __enter__(self):
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.is_silent.is_set():
                    collector._is_over.wait(DEADLINE_S)
                    self.close_connection = True
                    return
                collector.headers.append(dict(self.headers))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, path, body):
        """Decode what was sent."""
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = plain(group.resource.attributes)
                for scoped in group.scope_spans:
                    self.spans += [Span(raw, resource, scoped.scope.name) for raw in scoped.spans]
        else:
            assert path == "/v1/metrics", path
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scoped in group.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scoped.metrics}

    def find(self, name, **attributes):
        """Return the spans of a name with these attributes, whose dots are written as two underscores."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]

    def wait(self, name, **attributes):
        """Wait for a span and return it."""
        return wait_for(lambda: self.find(name, **attributes), f"the span {name} {attributes}")[0]

    def below(self, parent):
        """Return the spans directly below another, in the order they began."""
        return sorted((span for span in self.spans if span.parent == parent.id), key=lambda span: span.start)


def plain(attributes):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
