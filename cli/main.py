"""The `trademesh` command: its commands, and the one place where what went wrong becomes words and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from cli import holdings, market, mesh, orders, reference, reports, risk, user, watch
from cli.exits import Exit
from cli.output import Output
from cli.session import Group, Session, common_options
from kernel.config import ConfigError
from kernel.errors import Reason, TrademeshError
from kernel.values import use_exact_decimals
from mesh.local.layout import LocalMeshError

PROGRAM = "trademesh"
_FACTORY_KEY = "session_factory"


@click.group(PROGRAM, cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def trademesh() -> None:
    """Trade on Trademesh, and see and set what it allows.

    Exit codes: 0 done, 1 refused by risk, 2 wrong command or value, 3 not reachable, 4 not allowed, 5 the state forbids it,
    6 outcome unknown, 70 a defect.
    """


trademesh.params.extend(common_options())
for _command in (
    *(orders.order, orders.cancel, orders.cancel_all, orders.replace, orders.get, orders.orders, orders.executions, watch.watch),
    *(risk.limits, risk.kill, risk.risk, reference.accounts, reference.instruments),
    *(market.book, market.quotes, market.trades, holdings.positions, holdings.lots, holdings.balances, holdings.settlements),
    *(holdings.deposit, holdings.business_date, reports.report, user.token, mesh.status, mesh.demo),
):
    trademesh.add_command(_command)


def main(arguments: Sequence[str] | None = None, *, session_factory: Callable[[dict[str, Any]], Session] | None = None) -> int:
    """Run one command and return its exit code. Tests give the factory of a session without sockets."""
    use_exact_decimals()
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in words)
    try:
        with trademesh.make_context(PROGRAM, words) as context:
            if session_factory is not None:
                context.meta[_FACTORY_KEY] = session_factory
            code = trademesh.invoke(context)
            return int(code or 0)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        sys.stderr.write(f"{help_wanted.format_message()}\n")
        return Exit.INVALID
    except click.ClickException as error:
        place = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else PROGRAM
        return output.failure("USAGE", error.format_message(), f"`{place} --help` shows what it takes.", Exit.INVALID)
    except TrademeshError as error:
        return output.error(error)
    except ConfigError as error:
        return output.failure("USAGE", str(error), "", Exit.INVALID)
    except LocalMeshError as error:
        return output.failure(Reason.DEPENDENCY_UNAVAILABLE.value, str(error), "", Exit.UNAVAILABLE)
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has left; flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
