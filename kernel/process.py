"""A service's process: one configuration, one loop, a graceful end, and an exit code that tells its supervisor whether to try again."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import uvloop

from kernel.config import StartRefusedError
from kernel.errors import TrademeshError
from kernel.values import use_exact_decimals

CONFIGURATION_EXIT_CODE = 78
"""EX_CONFIG of sysexits.h: a person has to mend the configuration or the schema, and starting again by itself helps nobody."""

FAILURE_EXIT_CODE = 1
GARBAGE_THRESHOLD = 50_000

ConfigT = TypeVar("ConfigT")


class Server(Protocol):
    """What is served while a process lives."""

    async def start(self) -> None:
        """Bind and serve."""
        ...

    async def stop(self) -> None:
        """Stop gracefully; without a start, nothing happens."""
        ...


def run_process(
    program: str,
    configure: Callable[[], ConfigT],
    serve: Callable[[ConfigT, asyncio.Event], Awaitable[None]],
    *,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Parse the configuration once, run on uvloop, and return the exit code.

    0: told to stop, and stopped. 78: the start was refused. 1: something needed is away, or another expected failure. The last two are said
    on standard error, in words that begin with the program's name; whatever else is raised is a defect and leaves as it is.

    Args:
        program: its name, such as `svc_oms`.
        configure: returns the configuration, or raises `ConfigError`.
        serve: gets an event that SIGTERM or SIGINT sets, and stops gracefully when it is set.
        expected: what else may fail without being a defect.
    """
    use_exact_decimals()
    try:
        config = configure()
        uvloop.run(_supervised(lambda stop: serve(config, stop)))
    except StartRefusedError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return CONFIGURATION_EXIT_CODE
    except TrademeshError as error:
        sys.stderr.write(f"{program}: {error.reason.value}: {error}\n")
        return FAILURE_EXIT_CODE
    except expected as error:
        sys.stderr.write(f"{program}: {error}\n")
        return FAILURE_EXIT_CODE
    return 0


async def _supervised(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(stop)


def freeze_start() -> None:
    """Keep the garbage collector from walking what the start left, again and again: it stays for good."""
    gc.collect()
    gc.freeze()


def quiet_collector() -> None:
    """Freeze what the start left, and make the collector rare, for services whose calls, events and messages hold no cycles."""
    freeze_start()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)


async def until_stopped(
    server: Server,
    background: Sequence[Coroutine[Any, Any, None]],
    stop: asyncio.Event,
    *,
    started: Callable[[], None] = freeze_start,
    drains: Sequence[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Serve until told to stop, or until background work ends: a replica without its router must not look healthy.

    At the end the server stops first, then `drains` are called in turn while background work still runs, then that is cancelled.

    Args:
        server: what serves; it starts after the background work.
        background: what runs beside the calls and never ends by itself.
        stop: ends it.
        started: called once the server serves.
        drains: what needs background work for a good end.

    Raises:
        RuntimeError: background work ended without an error.
        Exception: what background work raised, or the server's start.
    """
    tasks = [asyncio.create_task(work) for work in background]
    stopped = asyncio.create_task(stop.wait())
    try:
        await server.start()
        started()
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not stopped:
                task.result()
                raise RuntimeError("background work ended by itself")
    finally:
        await server.stop()
        for drain in drains:
            await drain()
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
