"""OTLP over gRPC to a collector. Imported only where an endpoint is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter

from kernel.telemetry import Sample, TelemetryConfig

_COUNTER_ENDINGS = ("_total", "_bucket", "_sum")


def span_exporter(endpoint: str) -> SpanExporter:
    """Return an exporter of spans to a collector; TLS for `https` endpoints."""
    return OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))


class OtlpMetrics:
    """Hands the latest samples to OpenTelemetry's periodic exporter, one observable instrument per name."""

    def __init__(self, config: TelemetryConfig) -> None:
        endpoint = config.otlp_endpoint
        if endpoint is None:
            raise ValueError("no OTLP endpoint is configured")
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")),
            export_interval_millis=config.metrics_interval_seconds * 1000,
        )
        resource = Resource.create({"service.name": config.service, "service.instance.id": config.instance})
        self._provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("trademesh")
        self._latest: dict[str, list[Sample]] = {}

    def export(self, samples: list[Sample]) -> None:
        """Take the samples that the next export sends."""
        grouped: dict[str, list[Sample]] = {}
        for sample in samples:
            grouped.setdefault(sample.name, []).append(sample)
        for name in grouped.keys() - self._latest.keys():
            create = self._meter.create_observable_counter if name.endswith(_COUNTER_ENDINGS) else self._meter.create_observable_gauge
            create(name, callbacks=[self._reader(name)])
        # Replaced in one assignment: the exporter reads from its own thread.
        self._latest = self._latest | grouped

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(sample.value, dict(sample.labels)) for sample in self._latest.get(name, ())]

        return read

    def stop(self) -> None:
        """Send what is left; blocks up to the exporter's timeout."""
        self._provider.shutdown()
