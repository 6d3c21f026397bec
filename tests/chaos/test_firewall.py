"""Rules drop what they name, on loopback addresses of the test's own, and nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.chaos.firewall import TOOL, Drop, dropped, permitted

CALLER, CALLEE, OTHER = "127.88.7.1", "127.88.7.2", "127.88.7.3"
WAIT_SECONDS = 0.3

pytestmark = pytest.mark.skipif(bool(permitted()), reason=permitted() or "may set rules")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as found:
        found.bind((CALLEE, 0))
        found.listen()
        yield found


async def reaches(source: str, listener: socket.socket) -> bool:
    def connect() -> bool:
        try:
            socket.create_connection(listener.getsockname(), timeout=WAIT_SECONDS, source_address=(source, 0)).close()
        except TimeoutError:
            return False
        return True

    return await asyncio.to_thread(connect)


@pytest.mark.parametrize("way", ["there", "back"])
async def test_one_pair_is_cut_and_the_others_are_not(listener: socket.socket, way: str) -> None:
    port = listener.getsockname()[1]
    there = Drop((CALLER,), (CALLEE,), f"tcp dport {port}")
    back = Drop((CALLEE,), (CALLER,), f"tcp sport {port}")
    assert await reaches(CALLER, listener)
    async with dropped([there if way == "there" else back]):
        assert not await reaches(CALLER, listener)
        assert await reaches(OTHER, listener)
    assert await reaches(CALLER, listener)


async def test_a_rule_that_cannot_be_set_is_said_and_leaves_nothing() -> None:
    with pytest.raises(OSError, match=TOOL):
        async with dropped([Drop((CALLER,), (CALLEE,), "no such words")]):
            pytest.fail("there is no such rule")
    listed = await asyncio.to_thread(subprocess.run, [TOOL, "list", "tables"], capture_output=True, text=True, check=True)
    assert f"trademesh-chaos-{os.getpid()}" not in listed.stdout
