"""What a replica stands on: opened in order, closed in reverse, wherever it fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.config import Dsn
from kernel.foundation import Foundation, foundation
from kernel.foundation_stores import followed, open_bus
from kernel.grpc_client import ClientConfig
from kernel.ports import RecordedEvent
from kernel.telemetry import Sample
from tests.contract.kernel_net.worlds import MemoryWorld, record, until
from tests.unit.kernel_net.replicas import Replica
from tests.wire.serving import kept_logging

STOPPED = (("projection", "test"), ("source", "oms"))


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Give the process's logging back as it was."""
    with kept_logging():
        yield


@pytest.fixture
def config(tmp_path: Path) -> Replica:
    """Return a replica that measures itself."""
    return Replica(tmp_path / "x.sock", tmp_path / "telemetry")


class Opened:
    """Things that tell when they are closed."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def thing(self, base: Foundation, name: str) -> None:
        async def close() -> None:
            self.told.append(name)

        base.closing(close)


def exports(config: Replica) -> list[list[str]]:
    """Return the names of the samples of every export."""
    assert config.telemetry_folder is not None
    path = config.telemetry_folder / f"{config.instance}.metrics.jsonl"
    return [[sample["name"] for sample in json.loads(line)["samples"]] for line in path.read_text().splitlines()]


async def test_what_was_opened_last_is_closed_first_and_telemetry_after_all(config: Replica) -> None:
    opened = Opened()
    async with foundation("svc-x", config) as base:
        base.telemetry.metrics.source(lambda: [Sample(f"closed_{len(opened.told)}", 1)])
        for name in ("database", "log", "bus"):
            opened.thing(base, name)
    assert opened.told == ["bus", "log", "database"]
    assert exports(config) == [["closed_3"]]


async def test_a_failure_half_way_closes_what_was_opened(config: Replica) -> None:
    opened = Opened()
    with pytest.raises(OSError, match="half way"):
        async with foundation("svc-x", config) as base:
            opened.thing(base, "database")
            opened.thing(base, "log")
            raise OSError("half way")
    assert opened.told == ["log", "database"]
    assert len(exports(config)) == 1


async def test_a_closing_that_fails_keeps_none_from_being_closed(config: Replica) -> None:
    opened = Opened()

    async def broken() -> None:
        raise ConnectionError("gone before")

    with pytest.raises(ConnectionError):
        async with foundation("svc-x", config) as base:
            opened.thing(base, "database")
            base.closing(broken)
            opened.thing(base, "bus")
    assert opened.told == ["bus", "database"]
    assert len(exports(config)) == 1


async def test_telemetry_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "telemetry").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="telemetry"):
        async with foundation("svc-x", Replica(tmp_path / "x.sock", tmp_path / "telemetry")):
            raise AssertionError("must not be reached")


async def test_the_last_log_lines_are_written(config: Replica, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    async with foundation("svc-x", config):
        logging.getLogger("svc_x").info("the last word")
    last = json.loads(capfdbinary.readouterr().err.splitlines()[-1])
    assert (last["message"], last["service"], last["instance"]) == ("the last word", "svc-x", "svc_x-0")


async def test_a_channel_is_measured_and_closed(config: Replica) -> None:
    async with foundation("svc-x", config, trace_ratio=100) as base:
        client = ClientConfig(dependency="svc-y", targets=(f"unix:{config.socket_path}",))
        channels = [base.channel(client), base.channel(client, traced=False)]
        assert base.telemetry.tracing is not None
        assert base.telemetry.config.root_ratio == 1.0
        names = [sample.name for sample in base.telemetry.metrics.collect()]
        assert [names.count(name) for name in ("rpc_client_ready_replicas", "breaker_state")] == [2, 2]
    for channel in channels:
        with pytest.raises(Exception, match="closed"):
            await asyncio.wait_for(channel.unary_unary("/x.v1.X/Y")(b""), 5)


async def test_a_bus_is_there_where_one_is_configured(config: Replica) -> None:
    async with foundation("svc-x", config) as base:
        assert open_bus(base, None) is None
        assert open_bus(base, Dsn("redis://localhost:1/0")) is not None


async def test_a_projection_that_cannot_go_on_shows_it_and_leaves_the_service_running(config: Replica) -> None:
    def refuse(event: RecordedEvent) -> None:
        raise ValueError("cannot be applied")

    world = MemoryWorld()
    await record(world.store, 1)
    async with foundation("svc-x", config) as base:
        work = asyncio.create_task(followed(base, world.projection("a", refuse=refuse, poison_attempts=1)))
        await until(lambda: Sample("projection_stopped", True, STOPPED) in list(base.telemetry.metrics.collect()))
        assert not work.done()
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()


class Defective:
    """A projection with a defect."""

    def samples(self) -> list[Sample]:
        return []

    async def run(self) -> None:
        raise LookupError("a defect")


async def test_a_defect_of_a_projection_is_not_hidden(config: Replica) -> None:
    projection: Any = Defective()
    async with foundation("svc-x", config) as base:
        with pytest.raises(LookupError):
            await followed(base, projection)
