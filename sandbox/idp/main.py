"""Composition root: `python -m sandbox.idp`, configured by `TRADEMESH_IDP_*`."""

import asyncio
import fcntl
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import uvloop
from aiohttp import web

from kernel.clock import SystemClock
from kernel.config import ConfigError, Secret, load, setting
from kernel.logs import configure
from sandbox.idp.clients import Client, read_clients
from sandbox.idp.files import FileError
from sandbox.idp.keys import KeySet, Schedule
from sandbox.idp.rates import RateCap
from sandbox.idp.registry import Registry
from sandbox.idp.secret_hashes import hash_secret
from sandbox.idp.server import IdentityProvider
from sandbox.idp.tokens import Issuer

EXIT_CONFIGURATION = 2
EXIT_DATA = 3
_LOOPBACK = r"127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
_ISSUER = r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?"
_JWKS_MAX_AGE_SECONDS = 300
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdpConfig:
    """The environment of the issuer; every key is `TRADEMESH_` and the field's name in capitals.

    A key signs for `idp_key_seconds` and is published for `idp_key_lead_seconds` before, at least a token's life.
    """

    idp_data_directory: Path
    idp_issuer: str = setting(pattern=_ISSUER)
    idp_clients_file: Path | None = None
    idp_registration_token: Secret | None = None
    idp_address: str = setting("127.0.0.1", pattern=_LOOPBACK)
    idp_port: int = setting(9870, minimum=0, maximum=65_535)
    idp_audience: str = setting("trademesh", pattern=r"[\x21-\x7e]{1,255}")
    idp_token_seconds: int = setting(300, minimum=5, maximum=86_400)
    idp_key_seconds: int = setting(86_400, minimum=10, maximum=31_536_000)
    idp_key_lead_seconds: int = setting(900, minimum=5, maximum=604_800)
    idp_requests_per_minute: int = setting(120, minimum=1, maximum=100_000)
    idp_registered_clients_max: int = setting(1_000, minimum=1, maximum=10_000)
    idp_ready_file: Path | None = None
    idp_log_level: str = setting("INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))


def parse(environment: Mapping[str, str]) -> IdpConfig:
    """Read the configuration; other parts' `TRADEMESH_` keys are ignored.

    Raises:
        ConfigError: naming every wrong key.
    """
    own = {key: value for key, value in environment.items() if key.startswith("TRADEMESH_IDP_")}
    config = load(IdpConfig, own)
    problems = []
    if config.idp_registration_token is not None and _BEARER.fullmatch(config.idp_registration_token.reveal()) is None:
        problems.append(f"TRADEMESH_IDP_REGISTRATION_TOKEN: must match {_BEARER.pattern}")
    try:
        _schedule(config)
    except ValueError as error:
        problems.append(f"TRADEMESH_IDP_TOKEN_SECONDS, _KEY_LEAD_SECONDS, _KEY_SECONDS: {error}")
    if problems:
        raise ConfigError(problems)
    return config


def _schedule(config: IdpConfig) -> Schedule:
    return Schedule(config.idp_key_seconds, config.idp_key_lead_seconds, config.idp_token_seconds)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a running issuer is made of; the lock is held as long as its file is open."""

    provider: IdentityProvider
    keys: KeySet
    lock: TextIO


def build(config: IdpConfig) -> Parts:
    """Read the files that the configuration names and take the data directory, made with mode 0700.

    Raises:
        FileError: a file is wrong, open to others, or the data directory is in use.
    """
    clock = SystemClock()
    directory = config.idp_data_directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise FileError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise FileError(f"{directory}: another issuer uses it") from None
    static: Mapping[str, Client] = {} if config.idp_clients_file is None else read_clients(config.idp_clients_file)
    keys = KeySet(directory / "keys.json", _schedule(config), clock)
    issuer = Issuer(keys, clock, url=config.idp_issuer, audience=config.idp_audience, token_seconds=config.idp_token_seconds)
    provider = IdentityProvider(
        issuer=issuer,
        keys=keys,
        registry=Registry(directory / "clients.json", static, registered_max=config.idp_registered_clients_max),
        rates=RateCap(config.idp_requests_per_minute, clock),
        clock=clock,
        jwks_max_age_seconds=min(_JWKS_MAX_AGE_SECONDS, config.idp_key_lead_seconds // 2),
        operator_token=None if config.idp_registration_token is None else config.idp_registration_token.reveal(),
    )
    return Parts(provider, keys, lock)


async def serve(config: IdpConfig, parts: Parts) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP makes the next signing key. Returns the exit status."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, _rotate, parts.keys)
    runner = web.AppRunner(parts.provider.application(), access_log=None, keepalive_timeout=30)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.idp_address, config.idp_port, shutdown_timeout=2)
        await site.start()
        port = runner.addresses[0][1]
        line = f"ready http={config.idp_address}:{port} pid={os.getpid()}"
        if config.idp_ready_file is not None:
            _write_whole(config.idp_ready_file, f"{line}\n")
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        await stopped.wait()
        if config.idp_ready_file is not None:
            config.idp_ready_file.unlink(missing_ok=True)
    finally:
        await runner.cleanup()
        parts.lock.close()
    return 0


def _rotate(keys: KeySet) -> None:
    try:
        keys.rotate()
    except OSError:
        _log.exception("the next signing key could not be written")


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def main(arguments: Sequence[str] = ()) -> int:
    """Run the issuer; returns the exit status: 0 stopped, 2 configuration, 3 the data directory.

    With the argument `hash-secret`, print the hash of the secret on standard input, for the clients file.
    """
    if list(arguments) == ["hash-secret"]:
        return _print_hash()
    if arguments:
        sys.stderr.write("python -m sandbox.idp takes no arguments but hash-secret; configure it by TRADEMESH_IDP_* keys\n")
        return EXIT_CONFIGURATION
    try:
        config = parse(os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    writer = configure("sandbox-idp", "idp-0", level=config.idp_log_level)
    try:
        if config.idp_ready_file is not None:
            # A killed predecessor may have left one.
            config.idp_ready_file.unlink(missing_ok=True)
        parts = build(config)
    except FileError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_DATA
    try:
        return uvloop.run(serve(config, parts))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    finally:
        writer.flush()


def _print_hash() -> int:
    try:
        secret = sys.stdin.readline().rstrip("\r\n")
        sys.stdout.write(f"{hash_secret(secret)}\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIGURATION
    return 0
