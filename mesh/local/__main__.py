"""The mesh on this machine: `python -m mesh.local up|down|status|logs`."""

from __future__ import annotations

import argparse
import sys

from mesh.local import commands, screens
from mesh.local.layout import Layout, LocalMeshError
from mesh.local.options import SERVICES, Options


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parsed = _parser().parse_args(arguments)
    layout, console = Layout.default(), screens.console()
    try:
        match parsed.command:
            case "up" if not parsed.foreground:
                return commands.up(layout, _options(parsed), console)
            case "up" | "run":
                return commands.run(layout, _options(parsed), console)
            case "down":
                return commands.down(layout, console)
            case "status":
                return commands.status(layout, console, as_json=parsed.json)
            case _:
                return commands.logs(layout, parsed.names, lines_max=parsed.lines, follow=not parsed.no_follow)
    except LocalMeshError as error:
        screens.console(stderr=True).print(str(error), markup=False, soft_wrap=True)
        return 1


def _options(parsed: argparse.Namespace) -> Options:
    return Options(
        replicas=parsed.replicas,
        services=tuple(parsed.services.split(",")),
        venue_link=not parsed.no_venue_link,
        bus=not parsed.no_bus,
        exchange_flow=not parsed.no_exchange_flow,
        seed=not parsed.no_seed,
        ephemeral_ports=parsed.ephemeral_ports,
        own_manifests=parsed.own_manifests,
        certificate_seconds=parsed.certificate_seconds,
        token_seconds=parsed.token_seconds,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mesh.local", description="The mesh on this machine.")
    commands_parser = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|logs")
    starting = argparse.ArgumentParser(add_help=False)
    starting.add_argument("--replicas", type=int, default=2, help="of each service (2)")
    starting.add_argument("--services", default=",".join(SERVICES), metavar="A,B", help="which of our services run (all)")
    starting.add_argument("--ephemeral-ports", action="store_true", help="edge, issuer and exchange take any free ports on 127.0.0.1")
    starting.add_argument("--no-venue-link", action="store_true", help="leave orders unsent")
    starting.add_argument("--no-bus", action="store_true", help="publish nothing on the bus; consumers read the logs")
    starting.add_argument("--no-exchange-flow", action="store_true", help="no synthetic participants")
    starting.add_argument("--no-seed", action="store_true", help="create no accounts, instruments and limits")
    starting.add_argument("--own-manifests", action="store_true", help="follow a copy of mesh/istio in the state directory as it changes")
    starting.add_argument("--certificate-seconds", type=int, metavar="N", help="how long a workload's certificate is valid (3600)")
    starting.add_argument("--token-seconds", type=int, metavar="N", help="how long a token of the sandbox's issuer is valid (300)")
    up = commands_parser.add_parser("up", parents=[starting], help="start the mesh")
    up.add_argument("--foreground", action="store_true", help="supervise in this terminal; Ctrl-C stops the mesh")
    commands_parser.add_parser("run", parents=[starting])
    commands_parser.add_parser("down", help="stop the mesh cleanly")
    status = commands_parser.add_parser("status", help="show every instance; exit code 0 when all are ready, else 3")
    status.add_argument("--json", action="store_true", help="as one JSON document")
    logs = commands_parser.add_parser("logs", help="follow the logs")
    logs.add_argument("names", nargs="*", metavar="SERVICE", help="such as svc_oms, or one instance such as svc_oms-0 (all)")
    logs.add_argument("-n", "--lines", type=int, default=50, help="earlier lines to show (50)")
    logs.add_argument("--no-follow", action="store_true", help="do not wait for more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
