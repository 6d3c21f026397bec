"""Traces (OpenTelemetry) and metrics. Files by default, OTLP where an endpoint is configured; the SDK is imported only when started.

Who pays: a call that is not sampled pays one look at its `traceparent`; metrics are plain integers that are read once per export.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kernel.telemetry_traces import Tracing

_logger = logging.getLogger(__name__)

FILE_BYTES_MAX = 16 * 1024 * 1024
FILES_KEPT = 3


class Sample(NamedTuple):
    """One measured value. Names end in their unit, or in `_total` for counters."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Metrics:
    """The process's metrics: sources that are asked when somebody exports, so measuring costs an integer addition and no more."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[Sample]]] = []

    def source(self, source: Callable[[], Iterable[Sample]]) -> None:
        """Add a source; it is asked from the event loop and must not block."""
        self._sources.append(source)

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Add one value that is read at export: a queue's depth, a breaker's state, the horizon's lag."""
        pairs = tuple(sorted(labels.items()))
        self._sources.append(lambda: (Sample(name, read(), pairs),))

    def collect(self) -> Iterator[Sample]:
        """Yield the samples of every source; one that fails is logged and left out, the others count."""
        for source in self._sources:
            try:
                yield from list(source())
            except Exception:
                # A broken gauge must not take the others' alarms with it.
                _logger.exception("a metric source failed")


class RotatingLines:
    """A JSON-lines file of bounded size: at 16 MiB it becomes `<name>.1`, and three old ones are kept."""

    def __init__(self, path: Path, *, bytes_max: int = FILE_BYTES_MAX, files_kept: int = FILES_KEPT) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._files_kept = files_kept
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, given without newlines, and flush.

        Raises:
            OSError: the disk refuses.
        """
        block = "".join(f"{line}\n" for line in lines).encode()
        if not block:
            return
        if self._file.tell() and self._file.tell() + len(block) > self._bytes_max:
            self._rotate()
        self._file.write(block)
        self._file.flush()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._files_kept, 0, -1):
            source = self._path if number == 1 else self._numbered(number - 1)
            if source.exists():
                source.replace(self._numbered(number))
        self._file = self._path.open("ab")

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Where telemetry goes.

    Attributes:
        service: the service's name, such as `svc-oms`.
        instance: the replica's name.
        folder: of the files `<instance>.traces.jsonl` and `<instance>.metrics.jsonl`; None writes none.
        root_ratio: the share of calls without a `traceparent` that are traced, 0 to 1; a caller's decision is always honoured.
        otlp_endpoint: `http(s)://host:port` of a collector, gRPC; None sends nothing.
        metrics_interval_seconds: between two exports of the metrics.
    """

    service: str
    instance: str
    folder: Path | None = None
    root_ratio: float = 0.0
    otlp_endpoint: str | None = None
    metrics_interval_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.root_ratio <= 1:
            raise ValueError(f"root_ratio must lie between 0 and 1: {self.root_ratio}")


@dataclass(slots=True)
class Telemetry:
    """The process's telemetry. `tracing` is None until `start`, and stays None when nothing takes spans."""

    config: TelemetryConfig
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing | None = None
    _task: asyncio.Task[None] | None = None
    _exports: list[Callable[[list[Sample]], None]] = field(default_factory=list)
    _stops: list[Callable[[], object]] = field(default_factory=list)

    def start(self) -> None:
        """Begin to export, on the running event loop. Imports the SDK; some 0.2 s of CPU, once."""
        config = self.config
        if config.folder is None and config.otlp_endpoint is None:
            return
        from kernel.telemetry_traces import start_tracing

        self.tracing = start_tracing(config)
        self._stops.append(self.tracing.stop)
        exports = self._exports
        if config.folder is not None:
            lines = RotatingLines(config.folder / f"{config.instance}.metrics.jsonl")
            self._stops.append(lines.close)
            exports.append(_MetricsFile(lines, config).export)
        if config.otlp_endpoint is not None:
            from kernel.telemetry_otlp import OtlpMetrics

            otlp = OtlpMetrics(config)
            self._stops.append(otlp.stop)
            exports.append(otlp.export)
        self._task = asyncio.get_running_loop().create_task(self._export_forever())

    async def _export_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.metrics_interval_seconds)
            self._export()

    def _export(self) -> None:
        samples = list(self.metrics.collect())
        for export in self._exports:
            try:
                export(samples)
            except OSError as error:
                _logger.warning("metrics could not be written: %s", error)

    async def stop(self) -> None:
        """Export once more and let go of files and threads."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._export()
        for stop in reversed(self._stops):
            # Exporters flush on stop, and a collector that does not answer must not hold the loop.
            await asyncio.to_thread(stop)


class _MetricsFile:
    def __init__(self, lines: RotatingLines, config: TelemetryConfig) -> None:
        self._lines = lines
        self._constant: dict[str, Any] = {"service": config.service, "instance": config.instance}

    def export(self, samples: list[Sample]) -> None:
        stamp = time.time()
        values = [{"name": sample.name, **dict(sample.labels), "value": sample.value} for sample in samples]
        self._lines.write([json.dumps({"time": round(stamp, 3), **self._constant, "samples": values})])


class HeadSampler:
    """Decides at the door whether a call is traced: as its caller decided, else by chance. Costs under a microsecond."""

    def __init__(self, root_ratio: float, chance: Callable[[], float] = random.random) -> None:
        self._root_ratio = root_ratio
        self._chance = chance

    def sampled(self, metadata: Iterable[tuple[str, Any]]) -> bool:
        """Return whether a call with these headers is traced (W3C Trace Context, the last bit of the flags)."""
        for key, value in metadata:
            if key == "traceparent":
                return bool(value) and isinstance(value, str) and value[-1] in "13579bdf"
        return self._root_ratio > 0 and self._chance() < self._root_ratio
