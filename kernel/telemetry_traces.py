"""Traces by OpenTelemetry: its gRPC interceptors around sampled calls only, its asyncpg instrumentation inside recorded spans only.

Imported by `Telemetry.start` alone; it brings the SDK.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation import get_current_span

from kernel.telemetry import HeadSampler, RotatingLines, TelemetryConfig

_logger = logging.getLogger(__name__)

SPAN_QUEUE_MAX = 4_096


class Tracing:
    """Where spans are made. `sampler` decides at the door; everything below a sampled call is recorded, everything else costs nothing."""

    def __init__(self, provider: TracerProvider, sampler: HeadSampler, stops: Sequence[Callable[[], object]]) -> None:
        self._provider = provider
        self._stops = stops
        self._server = aio_server_interceptor(tracer_provider=provider)
        self.sampler = sampler

    async def traced(self, path: str, handler: grpc.RpcMethodHandler[bytes, bytes]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return the handler with a server span around each call."""

        async def found(_: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            return handler

        wrapped: grpc.RpcMethodHandler[bytes, bytes] = await self._server.intercept_service(found, _Details(path))
        return wrapped

    def client_interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Return the interceptors of a channel that only sampled calls use: a client span each, and its `traceparent`."""
        return list(aio_client_interceptors(tracer_provider=self._provider))

    def stop(self) -> None:
        """Flush and let go; blocks up to the exporter's own timeout."""
        for stop in self._stops:
            stop()


class _Details(grpc.HandlerCallDetails):
    def __init__(self, path: str) -> None:
        self.method = path
        self.invocation_metadata = ()


def current_traceparent() -> str:
    """Return the traceparent of the current span; empty outside of one."""
    context = get_current_span().get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}" if context.is_valid else ""


class _CallsOnly(Sampler):
    """A root is recorded only for a call that the door has sampled: database work in the background starts no trace of its own."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, kind: Any = None, *_: Any, **__: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kind is SpanKind.SERVER else Decision.DROP)

    def get_description(self) -> str:
        return "CallsOnly"


class _FileSpans(SpanExporter):
    def __init__(self, lines: RotatingLines) -> None:
        self._lines = lines

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            self._lines.write(span.to_json(indent=None) for span in spans)
        except OSError as error:
            _logger.warning("spans could not be written: %s", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._lines.close()


class _RecordedQueries(AsyncPGInstrumentor):
    """The instrumentation spends some 20 µs on a query before it asks whether anybody records; ask first."""

    async def _do_execute(self, func: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if not get_current_span().is_recording():
            return await func(*args, **kwargs)
        return await super()._do_execute(func, instance, args, kwargs)  # type: ignore[no-untyped-call]  # (the package has no types)

    async def _do_cursor_execute(self, func: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if not get_current_span().is_recording():
            return await func(*args, **kwargs)
        return await super()._do_cursor_execute(func, instance, args, kwargs)  # type: ignore[no-untyped-call]  # (the package has no types)

    async def _do_prepared_execute(self, func: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if not get_current_span().is_recording():
            return await func(*args, **kwargs)
        return await super()._do_prepared_execute(func, instance, args, kwargs)  # type: ignore[no-untyped-call]  # (the package has no types)


def start_tracing(config: TelemetryConfig) -> Tracing:
    """Set up the process's tracer provider, its exporters and the asyncpg instrumentation."""
    resource = Resource.create({"service.name": config.service, "service.instance.id": config.instance})
    provider = TracerProvider(sampler=ParentBased(_CallsOnly()), resource=resource, shutdown_on_exit=False)
    for exporter in _exporters(config):
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPAN_QUEUE_MAX))
    queries = _RecordedQueries()  # type: ignore[no-untyped-call]  # (the package has no types)
    queries.instrument(tracer_provider=provider)
    return Tracing(provider, HeadSampler(config.root_ratio), (queries.uninstrument, provider.shutdown))


def _exporters(config: TelemetryConfig) -> list[SpanExporter]:
    exporters: list[SpanExporter] = []
    if config.folder is not None:
        exporters.append(_FileSpans(RotatingLines(config.folder / f"{config.instance}.traces.jsonl")))
    if config.otlp_endpoint is not None:
        from kernel.telemetry_otlp import span_exporter

        exporters.append(span_exporter(config.otlp_endpoint))
    return exporters
