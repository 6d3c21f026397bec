"""A streaming replica of a mesh's PostgreSQL, and a failover to it: what survives is what the replica has.

The replica runs beside the primary. When the primary has died it is promoted, and its data take the place of the primary's, so that the
services find it at the same address, as behind a writer's endpoint that moves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import psutil

from mesh.local import child
from mesh.local.embedded import ADDRESS_FILE
from mesh.local.parts import POSTGRES
from mesh.local.postgres import installed_programs
from mesh.local.state import own_directory
from tests.chaos.scene import Scene

NAME = "standby"
START_SECONDS = 30.0
LOOK_SECONDS = 0.05

_STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming' AND ($2 = '' OR sync_state = $2)"


class Standby:
    """A replica that streams from the scene's PostgreSQL.

    Args:
        scene: whose mesh it is.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._state = scene.world.mesh.layout.data(POSTGRES)
        self._data = self._state / NAME
        self._uid = child.POSTGRES_UID if os.geteuid() == 0 else None
        copy = self._state / "programs"
        self._programs = next(copy.glob("*/pginstall18/bin"), installed_programs())
        self._sockets = scene.world.mesh.layout.create_private(NAME)
        address = urlsplit((scene.world.mesh.layout.private(POSTGRES) / ADDRESS_FILE).read_text().strip())
        self._user, self._password = unquote(address.username or ""), unquote(address.password or "")
        query = parse_qs(address.query)
        self._primary = f"host={query['host'][0]} port={query['port'][0]} user={self._user} application_name={NAME}"
        self._port = query["port"][0]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *, synchronous: bool) -> None:
        """Copy the primary, stream from it, and have commits wait for the replica where it is synchronous."""
        rules = self._state / "data" / "pg_hba.conf"
        with rules.open("a") as file:
            file.write("local replication all scram-sha-256\n")
        await self._scene.world.sql("SELECT pg_reload_conf()")
        await asyncio.to_thread(self._copy)
        self._run()
        await self._streaming("")
        if synchronous:
            async with self._scene.world.database() as connection:
                await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
                await connection.execute("SELECT pg_reload_conf()")
            await self._streaming("sync")
        self._scene.note(f"a {'synchronous' if synchronous else 'asynchronous'} standby streams")

    def suspend(self) -> None:
        """Keep it from receiving anything."""
        for process in self._family():
            process.suspend()

    async def take_over(self) -> None:
        """Promote the replica of a dead primary and put its data where the primary's were."""
        for process in self._family():
            process.resume()
        assert self._process is not None
        async with self._connection() as connection:
            assert await connection.fetchval("SELECT pg_promote(true, 30)"), "the standby was not promoted"
        await asyncio.to_thread(child.stop, self._process, ((signal.SIGINT, START_SECONDS),))
        self._process = None
        (self._state / "data").rename(self._state / "primary")
        self._data.rename(self._state / "data")
        self._scene.note("the standby is promoted")

    def end(self) -> None:
        """Stop it, whatever it does."""
        if self._process is not None:
            for process in self._family():
                process.kill()
            self._process.wait()
            self._process = None

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def _copy(self) -> None:
        own_directory(self._data)
        subprocess.run(
            [str(self._programs / "pg_basebackup"), "-d", self._primary, "-D", str(self._data), "-X", "stream", "-c", "fast"],
            check=True,
            capture_output=True,
            env={"PGPASSWORD": self._password, "LC_ALL": "C", "TZ": "UTC"},
            timeout=START_SECONDS,
        )
        (self._data / "standby.signal").touch()
        password = self._data / "primary.password"
        password.write_text(f"*:*:*:*:{self._password}\n")
        password.chmod(0o600)
        if self._uid is not None:
            for path in (self._data, *self._data.rglob("*"), self._sockets):
                os.chown(path, self._uid, self._uid, follow_symlinks=False)
            # The directory of all private directories is the mesh's owner's; the socket lies beside the data instead.
            self._sockets = own_directory(self._state / "standby-sockets", owner=self._uid)

    def _run(self) -> None:
        settings = {
            "primary_conninfo": f"{self._primary} passfile={self._data / 'primary.password'}",
            "unix_socket_directories": str(self._sockets),
            "listen_addresses": "",
            "port": self._port,
            "jit": "off",
        }
        self._process = child.spawn(
            [str(self._programs / "postgres"), "-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())],
            uid=self._uid,
            log=self._state / "standby.log",
            directory=self._data,
            death_signal=signal.SIGINT,
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(
            host=str(self._sockets), port=int(self._port), user=self._user, password=self._password, database="postgres"
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5.0)

    async def _streaming(self, state: str) -> None:
        async def streams() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise child.ChildError(f"the standby has ended\n{child.log_tail(self._state / 'standby.log')}")
            return bool((await self._scene.world.sql(_STREAMS, NAME, state))[0][0])

        await self._scene.world.until(streams, timeout_seconds=START_SECONDS)
