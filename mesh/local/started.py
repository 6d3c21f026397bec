"""The one screen after a start: what runs, where the doors are, and how to trade through each of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesh.local.layout import Layout
from mesh.local.outside import AUTHORITY_FACT, EDGE_FACT, ISSUER_FACT
from mesh.local.report import MeshReport
from mesh.local.screens import InstanceView, view
from mesh.local.topology import ENVOY

_ORDER = (
    '{"client_order_id": "my-1", "instrument_id": "AAPL", "side": "SIDE_BUY", "type": "ORDER_TYPE_MARKET",\n'
    '             "time_in_force": "TIME_IN_FORCE_DAY", "quantity": "10"}'
)


def started_screen(console: Console, report: MeshReport, layout: Layout) -> None:
    """Write the screen."""
    running = [item for item in view(report) if item.pid is not None]
    took = "" if report.ready_seconds is None else f" in {report.ready_seconds:.1f} s"
    console.print(f"\n[bold green]Trademesh is up[/]{took}.\n")
    console.print(_parts(running))
    for line in ("", *_doors(report), *_trading(report), "", *_operating(layout)):
        console.print(line, markup=False, soft_wrap=True)


def _parts(running: Sequence[InstanceView]) -> Table:
    """One line for each service and part: how many, how large, and where."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(no_wrap=True)
    sidecars = {item.instance.removeprefix(f"{ENVOY}-"): item for item in running if item.service == ENVOY}
    for service in dict.fromkeys(item.service for item in running if item.service != ENVOY):
        replicas = [item for item in running if item.service == service]
        memory = " + ".join(f"{item.rss_mib:.0f}" for item in replicas if item.rss_mib is not None)
        beside = [sidecars[item.instance] for item in replicas if item.instance in sidecars]
        where = ", ".join(item.address for item in beside) if beside else replicas[0].address
        table.add_row(f"  {service}", f"{memory} MiB", escape(where))
    return table


def _doors(report: MeshReport) -> list[str]:
    edge = report.facts[EDGE_FACT]
    return [
        f"  REST, gRPC   https://{edge}        WebSocket  wss://{edge}/v1/ws        Pages  https://{edge}/docs",
        f"  Issuer       {report.facts[ISSUER_FACT]}",
        f"  Authority    {report.facts[AUTHORITY_FACT]}",
    ]


def _trading(report: MeshReport) -> list[str]:
    edge, authority = report.facts[EDGE_FACT], report.facts[AUTHORITY_FACT]
    return [
        "",
        "  By command   trademesh order buy 10 AAPL --account ACC-1 --wait 5",
        "               trademesh watch | book | positions | balances | settlements | report … (`trademesh --help`; it lies in .venv/bin)",
        "  A token      TOKEN=$(trademesh token --account ACC-1)",
        f'  By curl      curl --cacert {authority} https://{edge}/v1/accounts/ACC-1/orders -H "Authorization: Bearer $TOKEN" --json \\',
        f"            '{_ORDER}'",
        f'  By grpcurl   grpcurl -cacert {authority} -protoset gen/descriptor/trademesh.binpb -H "authorization: Bearer $TOKEN" \\',
        f'             -d \'{{"account_id": "ACC-1"}}\' {edge} trademesh.oms.v1.OrderService/StreamOrderEvents',
        "  See it all   make demo",
    ]


def _operating(layout: Layout) -> list[str]:
    return [f"  Logs    {layout.logs}   (make logs S=svc_oms)", "  Status  make status            Stop  make down"]
