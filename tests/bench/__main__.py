"""`python -m tests.bench`: what the mesh does beside a bare gRPC echo, in one run on this machine. The last line is one JSON object.

Direct figures go to the services' private sockets, where the bench plays the sidecar. Risk, durability, validation, keys and authorisation
are on.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mesh.local.harness import LocalMesh
from mesh.local.options import TRADING, Options
from tests.bench import doors, world
from tests.bench.echo import EchoServer
from tests.bench.load import Generator, GeneratorError, Load, LoadResult
from tests.bench.machine import cpu_seconds, fsync_us, rss_mb

ROUNDS = 5
PARTS = ("svc_oms", "svc_risk", "postgres")
IN_FLIGHT = 1_024
BATCH_CALLS_IN_FLIGHT = 16
"""Of a hundred orders each. Twice as many wait up to 0.6 s, and order entry refuses what waited 0.5 s where more than a flush waits."""
LIGHT_IN_FLIGHT = 64
CHAIN_ORDERS_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to place orders, and the echo that it is held against.

    Attributes:
        key: of the summary's entries.
        name: the generator's mode.
        echo: the echo's mode.
        in_flight: calls, or messages of the streams, under way at once.
        echo_in_flight: the same for the echo; it differs for batches alone, of which each call holds a hundred orders.
        connections: to as many replicas, in turn; a stream goes over each. The echo gets as many.
    """

    key: str
    name: str
    echo: str
    in_flight: int
    echo_in_flight: int
    connections: int = 2


MODES = (
    Mode("order_unary", "order-unary", "echo-unary", IN_FLIGHT, IN_FLIGHT),
    Mode("order_stream", "order-stream", "echo-stream", IN_FLIGHT, IN_FLIGHT),
    Mode("order_batch", "order-batch", "echo-unary", BATCH_CALLS_IN_FLIGHT, IN_FLIGHT),
    Mode("order_unary_light", "order-unary", "echo-unary", LIGHT_IN_FLIGHT, LIGHT_IN_FLIGHT),
    Mode("order_stream_single", "order-stream", "echo-stream", IN_FLIGHT // 2, IN_FLIGHT // 2, connections=1),
)


@dataclass(frozen=True, slots=True)
class Round:
    """One interleaved pair of runs."""

    echo: LoadResult
    orders: LoadResult
    cpu_us: dict[str, float]


def main() -> int:
    """Run it all and return the exit code: 1 where an order failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds; medians count ({ROUNDS})")
    parser.add_argument("--seconds", type=int, default=3, help="measured seconds of each run (3)")
    options = parser.parse_args()
    console = Console(file=sys.stderr if not sys.stdout.isatty() else sys.stdout, width=150)
    try:
        summary = bench(console, options.rounds, options.seconds)
    except (GeneratorError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary))
    return 0


def bench(console: Console, rounds: int, seconds: int) -> dict[str, object]:
    """Measure direct order entry and then the whole chain; return the summary.

    Raises:
        GeneratorError: an order came back as an error, or a run broke.
        TimeoutError: the chain did not drain.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = Generator.build(folder, f"b{int(time.time()):x}")
        summary: dict[str, object] = {"cores": os.cpu_count(), "fsync_us": fsync_us(folder), "rounds": rounds, "seconds": seconds}
        with EchoServer(folder) as echo:
            summary |= _direct(console, generator, echo, rounds, seconds)
        summary |= doors.measure(console, generator, rounds, seconds)
        summary |= _chain(console, generator)
    return summary


def _direct(console: Console, generator: Generator, echo: EchoServer, rounds: int, seconds: int) -> dict[str, object]:
    shape = Options(venue_link=False, bus=False, ephemeral_ports=True, services=TRADING)
    results: dict[str, list[Round]] = {mode.key: [] for mode in MODES}
    with LocalMesh(shape) as mesh:
        world.prepare(mesh)
        headers = world.headers(mesh)
        for number in range(1, rounds + 1):
            for mode in MODES:
                measured = _round(mesh, generator, echo, mode, headers, seconds)
                results[mode.key].append(measured)
                ratio = measured.orders.orders_per_second / measured.echo.calls_per_second
                console.print(
                    f"round {number}/{rounds}  {mode.key:19}  {measured.orders.orders_per_second:7.0f} orders/s"
                    f"  echo {measured.echo.calls_per_second:7.0f}/s  ratio {ratio:.2f}"
                )
        memory = {item.name: rss_mb(item.pid) for part in PARTS[:2] for item in mesh.instances(part) if item.pid is not None}
    console.print(_table(results))
    return _direct_summary(results, memory)


def _round(mesh: LocalMesh, generator: Generator, echo: EchoServer, mode: Mode, headers: dict[str, dict[str, str]], seconds: int) -> Round:
    sockets = list(headers)[: mode.connections]
    echoed = generator.run(mode.echo, [echo.socket] * len(sockets), {}, _load(mode.echo_in_flight, seconds))
    pids = {part: mesh.pids(part) for part in PARTS}
    before = {part: cpu_seconds(found) for part, found in pids.items()}
    orders = generator.run(mode.name, sockets, headers, _load(mode.in_flight, seconds))
    after = {part: cpu_seconds(found) for part, found in pids.items()}
    # Nobody sends these orders, and 5 s later each is refused and its exposure released: not in the next run's time.
    world.await_drained(mesh)
    if orders.errors or not orders.accepted:
        raise GeneratorError(f"{mode.name}: {orders.errors} orders failed, the first with {orders.first_error}")
    # The processes work through the warm-up too.
    handled = orders.orders * (seconds + 1) / seconds
    return Round(echoed, orders, {part: (after[part] - before[part]) / handled * 1e6 for part in PARTS})


def _load(in_flight: int, seconds: int) -> Load:
    return Load(in_flight, 1, seconds, world.ACCOUNTS, world.INSTRUMENTS)


def _table(results: dict[str, list[Round]]) -> Table:
    table = Table(title="Direct to the services, medians")
    for column in ("", "orders/s", "echo/s", "ratio", "p50 ms", "p99 ms", *(f"{part} us" for part in PARTS), "generator us"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in results.items():
        table.add_row(
            name,
            f"{_median([item.orders.orders_per_second for item in found]):.0f}",
            f"{_median([item.echo.calls_per_second for item in found]):.0f}",
            f"{_ratio(found):.2f}",
            f"{_median([item.orders.p50_us for item in found]) / 1e3:.1f}",
            f"{_median([item.orders.p99_us for item in found]) / 1e3:.1f}",
            *(f"{_median([item.cpu_us[part] for item in found]):.0f}" for part in PARTS),
            f"{_median([item.orders.generator_cpu_seconds / max(item.orders.orders, 1) * 1e6 for item in found]):.0f}",
        )
    return table


def _direct_summary(results: dict[str, list[Round]], memory: dict[str, float]) -> dict[str, object]:
    summary: dict[str, object] = {
        "echo_unary_rps": round(_echo_rate(results["order_unary"])),
        "echo_stream_rps": round(_echo_rate(results["order_stream"])),
        "echo_stream_single_rps": round(_echo_rate(results["order_stream_single"])),
        "rss_mb_max": round(max(memory.values())),
    }
    for mode in MODES:
        key, found = mode.key, results[mode.key]
        summary[f"{key}_rps"] = round(_median([item.orders.orders_per_second for item in found]))
        summary[f"{key}_ratio"] = round(_ratio(found), 3)
        summary[f"{key}_in_flight"] = mode.in_flight
        summary[f"{key}_p50_ms"] = round(_median([item.orders.p50_us for item in found]) / 1e3, 2)
        summary[f"{key}_p99_ms"] = round(_median([item.orders.p99_us for item in found]) / 1e3, 2)
        summary[f"{key}_cpu_us"] = {part: round(_median([item.cpu_us[part] for item in found])) for part in PARTS}
    return summary | {"rss_mb": {name: round(size) for name, size in memory.items()}}


def _echo_rate(rounds: Sequence[Round]) -> float:
    return _median([item.echo.calls_per_second for item in rounds])


def _ratio(rounds: Sequence[Round]) -> float:
    return _median([item.orders.orders_per_second / item.echo.calls_per_second for item in rounds])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _chain(console: Console, generator: Generator) -> dict[str, object]:
    """Orders through the venue and back, until it has answered all and risk and the bus have caught up."""
    with LocalMesh(Options(ephemeral_ports=True)) as mesh:
        world.prepare(mesh)
        headers = world.headers(mesh)
        world.await_drained(mesh)
        before = _order_count(mesh)
        started = time.monotonic()
        sent = generator.run("order-unary", list(headers), headers, _load(64, CHAIN_ORDERS_SECONDS))
        if sent.errors:
            raise GeneratorError(f"{sent.errors} orders failed, the first with {sent.first_error}")
        drained_after = world.await_drained(mesh)
        elapsed = time.monotonic() - started
        orders = _order_count(mesh) - before
    rate = orders / elapsed
    console.print(f"whole chain: {orders} orders in {elapsed:.1f} s ({drained_after:.1f} s to drain) = {rate:.0f} orders/s")
    return {"full_chain_rps": round(rate), "full_chain_orders": orders, "full_chain_drain_s": round(drained_after, 2)}


def _order_count(mesh: LocalMesh) -> int:
    (row,) = world.sql(mesh, "SELECT count(*) FROM svc_oms.orders")
    return int(row["count"])


if __name__ == "__main__":
    sys.exit(main())
