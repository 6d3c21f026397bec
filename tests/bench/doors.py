"""The same orders by longer ways, each beside the direct one of its round: two sidecars, the edge by gRPC, the edge by REST."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.access import LocalUsers
from mesh.local.compiler import host_name
from mesh.local.harness import LocalMesh
from mesh.local.options import TRADING, Options
from mesh.local.outside import door
from mesh.local.sidecar import GRPC_PORT
from mesh.local.topology import ENVOY
from tests.bench import world
from tests.bench.egress import ClientSidecar, client_sidecar
from tests.bench.load import Generator, GeneratorError, Load, LoadResult
from tests.bench.machine import cpu_seconds

IN_FLIGHT = 120
"""Below what the mesh takes from one caller (`http2MaxRequests` of the subset `orders`)."""
STREAM = "order-stream"
EDGE_CONNECTIONS = 4
"""The edge takes 256 requests at a time on one HTTP/2 connection."""
HTTP1_CONNECTIONS = 120
LATENCY_SECONDS = 2
PROCESSES = ("svc_oms", "svc_risk", "postgres", "sidecars", "edge")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to place orders: the generator's mode, where it connects, with which headers, and how many orders are under way."""

    key: str
    mode: str
    targets: Sequence[str]
    headers: Mapping[str, Mapping[str, str]]
    in_flight: int = IN_FLIGHT

    @property
    def streams(self) -> bool:
        """Whether orders go over a stream."""
        return self.mode == STREAM


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run did. CPU is in microseconds an order, by process; `alone_us` the median latency of one order at a time, 0 on streams."""

    orders: LoadResult
    cpu_us: Mapping[str, float]
    alone_us: float


def measure(console: Console, generator: Generator, rounds: int, seconds: int) -> dict[str, object]:
    """Measure every way, round by round, on one mesh; return the summary's entries.

    Raises:
        GeneratorError: an order came back as an error, or a run broke.
        TimeoutError: the chain did not drain.
    """
    results: dict[str, list[Measured]] = {}
    options = Options(venue_link=False, bus=False, ephemeral_ports=True, services=TRADING)
    with LocalMesh(options) as mesh, client_sidecar(mesh) as client:
        world.prepare(mesh)
        authority = door(mesh.layout).authority_file
        for number in range(1, rounds + 1):
            for way in ways(mesh, client.egress_socket):
                found = _run(mesh, client, generator, way, authority, seconds)
                results.setdefault(way.key, []).append(found)
                rate = found.orders.orders_per_second
                console.print(f"round {number}/{rounds}  {way.key:19}  {rate:7.0f} orders/s  one at a time {found.alone_us / 1e3:6.2f} ms")
    console.print(_table(results))
    return _summary(results)


def ways(mesh: LocalMesh, egress_socket: Path) -> list[Way]:
    """Return the ways, with a token that has just been made; `egress_socket` is where the mesh takes orders as from the edge."""
    token = LocalUsers(mesh.layout).token(world.TRADER).text
    direct = world.headers(mesh)
    egress = str(egress_socket)
    bearer = {"authorization": f"Bearer {token}"}
    edge = f"tls:{door(mesh.layout).edge}"
    sidecar = {egress: {":authority": f"{host_name('svc-oms')}:{GRPC_PORT}", **bearer}}
    return [
        Way("direct", "order-unary", list(direct), direct),
        Way("mesh_grpc", "order-unary", [egress] * 2, sidecar),
        Way("edge_grpc", "order-unary", [edge] * EDGE_CONNECTIONS, {edge: bearer}),
        Way("edge_rest", "rest-h2", [edge] * EDGE_CONNECTIONS, {edge: bearer}),
        Way("edge_rest_http1", "rest-h1", [edge], {edge: bearer}, HTTP1_CONNECTIONS),
        Way("direct_stream", STREAM, list(direct), direct),
        Way("mesh_stream", STREAM, [egress] * 2, sidecar),
        Way("edge_stream", STREAM, [edge] * 2, {edge: bearer}),
    ]


def _run(mesh: LocalMesh, client: ClientSidecar, generator: Generator, way: Way, authority: Path, seconds: int) -> Measured:
    pids = _pids(mesh, client)
    before = {part: cpu_seconds(found) for part, found in pids.items()}
    orders = generator.run(way.mode, way.targets, way.headers, _load(way.in_flight, seconds), authority=authority)
    after = {part: cpu_seconds(found) for part, found in pids.items()}
    _require(way, orders)
    world.await_drained(mesh)
    alone_us = 0.0 if way.streams else _alone_us(mesh, generator, way, authority)
    # The processes work through the warm-up too.
    handled = orders.orders * (seconds + 1) / seconds
    return Measured(orders, {part: (after[part] - before[part]) / handled * 1e6 for part in PROCESSES}, alone_us)


def _alone_us(mesh: LocalMesh, generator: Generator, way: Way, authority: Path) -> float:
    alone = generator.run(way.mode, way.targets[:1], way.headers, _load(1, LATENCY_SECONDS), authority=authority)
    _require(way, alone)
    world.await_drained(mesh)
    return alone.p50_us


def _require(way: Way, orders: LoadResult) -> None:
    if orders.errors or not orders.accepted:
        raise GeneratorError(f"{way.key}: {orders.errors} orders failed, the first with {orders.first_error}")


def _pids(mesh: LocalMesh, client: ClientSidecar) -> dict[str, list[int]]:
    sidecars = [*mesh.pids(ENVOY), client.pid]
    return {part: sidecars if part == "sidecars" else mesh.pids(part) for part in PROCESSES}


def _load(in_flight: int, seconds: int) -> Load:
    return Load(in_flight, 1, seconds, world.ACCOUNTS, world.INSTRUMENTS)


def _table(results: Mapping[str, Sequence[Measured]]) -> Table:
    table = Table(title="By longer ways, medians")
    for column in ("", "orders/s", "of direct", "p50 ms", "p99 ms", "one at a time ms", *(f"{part} us" for part in PROCESSES)):
        table.add_column(column, justify="left" if not column else "right")
    for key, found in results.items():
        table.add_row(
            key,
            f"{_median(found, _rate):.0f}",
            f"{_ratio(results, key):.2f}",
            f"{_median(found, lambda item: item.orders.p50_us) / 1e3:.1f}",
            f"{_median(found, lambda item: item.orders.p99_us) / 1e3:.1f}",
            f"{_median(found, lambda item: item.alone_us) / 1e3:.2f}",
            *(f"{statistics.median(item.cpu_us[part] for item in found):.0f}" for part in PROCESSES),
        )
    return table


def _summary(results: Mapping[str, Sequence[Measured]]) -> dict[str, object]:
    summary: dict[str, object] = {}
    for key, found in results.items():
        name = "beside_direct" if key == "direct" else key
        summary[f"{name}_rps"] = round(_median(found, _rate))
        summary[f"{name}_alone_ms"] = round(_median(found, lambda item: item.alone_us) / 1e3, 3)
        summary[f"{name}_cpu_us"] = {part: round(statistics.median(item.cpu_us[part] for item in found)) for part in PROCESSES}
        if not key.startswith("direct"):
            summary[f"{name}_ratio"] = round(_ratio(results, key), 3)
    return summary


def _rate(item: Measured) -> float:
    return item.orders.orders_per_second


def _ratio(results: Mapping[str, Sequence[Measured]], key: str) -> float:
    """The median over the rounds of a way's rate to the direct one's."""
    pairs = zip(results[key], results["direct_stream" if key.endswith("stream") else "direct"], strict=True)
    return statistics.median(_rate(found) / _rate(direct) for found, direct in pairs)


def _median(found: Sequence[Measured], read: Callable[[Measured], float]) -> float:
    return statistics.median(read(item) for item in found)
