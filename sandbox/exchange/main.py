"""Composition root: `python -m sandbox.exchange`, configured by `TRADEMESH_EXCHANGE_*`."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from kernel.clock import SystemClock
from kernel.config import ConfigError, load, setting
from kernel.logs import configure
from kernel.ports import Clock
from sandbox.exchange.control import ControlError
from sandbox.exchange.engine.snapshot import SnapshotError
from sandbox.exchange.exchange import Exchange, ExchangeSettings
from sandbox.exchange.flow import FlowSettings
from sandbox.exchange.instruments import InstrumentFileError, read_instruments
from sandbox.exchange.journal import JournalError, JournalLimits
from sandbox.exchange.market_data.channels import ChannelSettings, MarketDataServer
from sandbox.exchange.market_data.image import FeedRulesError, check_instruments
from sandbox.exchange.market_data.publisher import FeedSettings
from sandbox.exchange.market_data.session_names import SessionFileError
from sandbox.exchange.members import CredentialsError, read_credentials
from sandbox.exchange.server import ExchangeServer
from sandbox.exchange.tap import BookPublisher

DEFAULT_INSTRUMENTS = Path(__file__).with_name("instruments.json")
EXIT_CONFIGURATION = 2
EXIT_JOURNAL = 3
_LOOPBACK = r"127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
_DESTINATION = _LOOPBACK + r":[1-9][0-9]{0,4}"
_PORT_MAX = 65_535
_MEBIBYTE = 1024 * 1024
_GARBAGE_THRESHOLD = 50_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExchangeConfig:
    """The environment of a sandbox exchange; every key is `TRADEMESH_` and the field's name in capitals."""

    exchange_journal_directory: Path
    exchange_credentials_file: Path
    exchange_instruments_file: Path = DEFAULT_INSTRUMENTS
    exchange_comp_id: str = setting("XSIM", pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
    exchange_address: str = setting("127.0.0.1", pattern=_LOOPBACK)
    exchange_fix_port: int = setting(9878, minimum=0, maximum=65_535)
    exchange_control_socket: Path | None = None
    exchange_ready_file: Path | None = None
    exchange_script_file: Path | None = None
    exchange_itch_a: tuple[str, ...] = setting((), pattern=_DESTINATION)
    exchange_itch_b: tuple[str, ...] = setting((), pattern=_DESTINATION)
    exchange_itch_request_port: int = setting(26402, minimum=0, maximum=65_535)
    exchange_itch_snapshot_port: int = setting(26403, minimum=0, maximum=65_535)
    exchange_itch_packets_per_second: int = setting(2_000, minimum=10, maximum=1_000_000)
    exchange_itch_store_mib: int = setting(32, minimum=1, maximum=1_024)
    exchange_seed: int = setting(1, minimum=0)
    exchange_flow_rate: int = setting(4, minimum=0, maximum=1_000)
    exchange_flow_ample_depth: bool = False
    exchange_closed_orders_max: int = setting(100_000, minimum=1_000, maximum=10_000_000)
    exchange_journal_segment_mib: int = setting(128, minimum=1, maximum=2_048)
    exchange_log_level: str = setting("INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))


def parse(environment: Mapping[str, str]) -> ExchangeConfig:
    """Read the configuration; other parts' `TRADEMESH_` keys are ignored.

    Raises:
        ConfigError: naming every wrong key.
    """
    own = {key: value for key, value in environment.items() if key.startswith("TRADEMESH_EXCHANGE_")}
    return load(ExchangeConfig, own)


def market_data_of(config: ExchangeConfig, clock: Clock) -> MarketDataServer | None:
    """Return the feed that the configuration wants, not yet started; None if no line has a destination.

    Raises:
        ConfigError: a destination whose port is above 65535.
    """
    if not config.exchange_itch_a and not config.exchange_itch_b:
        return None
    destinations: dict[str, list[tuple[str, int]]] = {}
    for line, texts in (("A", config.exchange_itch_a), ("B", config.exchange_itch_b)):
        destinations[line] = []
        for text in texts:
            host, _, port = text.partition(":")
            if int(port) > _PORT_MAX:
                raise ConfigError([f"TRADEMESH_EXCHANGE_ITCH_{line}: {text} has a port above {_PORT_MAX}"])
            destinations[line].append((host, int(port)))
    feed = FeedSettings(config.exchange_itch_packets_per_second, config.exchange_itch_store_mib * _MEBIBYTE)
    settings = ChannelSettings(
        destinations, config.exchange_address, config.exchange_itch_request_port, config.exchange_itch_snapshot_port, feed
    )
    return MarketDataServer(settings, clock, config.exchange_journal_directory / "market-data-session.json")


def build(config: ExchangeConfig, clock: Clock, publisher: BookPublisher | None) -> Exchange:
    """Read the files that the configuration names and restore the venue.

    Raises:
        FeedRulesError: an instrument that is to be published does not fit ITCH.
        InstrumentFileError, CredentialsError: a file is wrong.
        JournalError, SnapshotError: the journal is in use, damaged, or belongs to other instruments.
    """
    instruments = read_instruments(config.exchange_instruments_file)
    if publisher is not None:
        check_instruments(instruments)
    settings = ExchangeSettings(
        comp_id=config.exchange_comp_id,
        instruments=instruments,
        credentials=read_credentials(config.exchange_credentials_file),
        journal_directory=config.exchange_journal_directory,
        seed=config.exchange_seed,
        flow=FlowSettings(ample_depth=config.exchange_flow_ample_depth),
        journal=JournalLimits(segment_bytes_max=config.exchange_journal_segment_mib * _MEBIBYTE),
        closed_orders_max=config.exchange_closed_orders_max,
    )
    return Exchange(settings, clock, publisher)


async def serve(config: ExchangeConfig, exchange: Exchange, market_data: MarketDataServer | None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    server = ExchangeServer(exchange, config.exchange_flow_rate, market_data)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stopped.set)
    if config.exchange_script_file is not None:
        server.control.run_script(config.exchange_script_file.read_text(encoding="utf-8").splitlines())
    port = await server.start(config.exchange_address, config.exchange_fix_port, config.exchange_control_socket)
    # What was restored stays for good, and orders hold no cycles: keep the collector from walking them again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 100)
    line = f"ready fix={config.exchange_address}:{port} pid={os.getpid()}"
    if server.market_data_ports is not None:
        itch = server.market_data_ports
        line += f" itch_request={config.exchange_address}:{itch.request} itch_snapshot={config.exchange_address}:{itch.snapshot}"
    if config.exchange_ready_file is not None:
        _write_whole(config.exchange_ready_file, f"{line}\n")
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    await server.stopped.wait()
    if config.exchange_ready_file is not None:
        config.exchange_ready_file.unlink(missing_ok=True)
    await server.close()
    if server.failure is not None:
        _log.critical("stopped by a failure: %s", server.failure)
        return EXIT_JOURNAL
    return 0


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the exchange; returns the exit status: 0 stopped, 2 configuration, 3 journal or a defect."""
    if arguments:
        sys.stderr.write("python -m sandbox.exchange takes no arguments; configure it by TRADEMESH_EXCHANGE_* keys\n")
        return EXIT_CONFIGURATION
    try:
        config = parse(os.environ)
        if config.exchange_ready_file is not None:
            # A killed predecessor may have left one.
            config.exchange_ready_file.unlink(missing_ok=True)
        writer = configure("sandbox-exchange", "exchange-0", level=config.exchange_log_level)
        clock = SystemClock()
        market_data = market_data_of(config, clock)
        exchange = build(config, clock, None if market_data is None else market_data.publisher)
    except (ConfigError, InstrumentFileError, CredentialsError, FeedRulesError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    except (JournalError, SnapshotError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_JOURNAL
    try:
        return uvloop.run(serve(config, exchange, market_data))
    except (ControlError, FeedRulesError, SessionFileError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    finally:
        writer.flush()
