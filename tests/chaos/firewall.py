"""Packets that are dropped on this machine's loopback, by rules that the kernel forgets with the process that holds them (nftables)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

TOOL = "nft"
ANSWER_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets to be dropped: from these addresses to those, all of 127.0.0.0/8, and of one port where one is given.

    Attributes:
        sources: where they come from.
        destinations: where they go.
        port: `tcp dport 9000` or the like, in the words of nftables.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    port: str

    def rule(self) -> str:
        """Return the rule."""
        assert all(address.startswith("127.") for address in (*self.sources, *self.destinations)), "nothing but this machine's own"
        return f"ip saddr {{ {', '.join(self.sources)} }} ip daddr {{ {', '.join(self.destinations)} }} {self.port} drop"


def permitted() -> str:
    """Say why rules cannot be set here; empty where they can. Nothing is changed."""
    tool = shutil.which(TOOL)
    if tool is None:
        return f"needs `{TOOL}` (the package nftables)"
    tried = subprocess.run([tool, "--check", "add", "table", "inet", "trademesh-chaos-check"], capture_output=True, text=True, check=False)
    return f"`{TOOL}` may not set rules here: {tried.stderr.strip().splitlines()[0]}" if tried.returncode != 0 else ""


@asynccontextmanager
async def dropped(drops: Iterable[Drop]) -> AsyncIterator[None]:
    """Drop packets from enter to exit, or to the end of this process."""
    table = f"inet trademesh-chaos-{os.getpid()}"
    lines = [
        f"add table {table} {{ flags owner; }}",
        f"add chain {table} drops {{ type filter hook input priority 0; policy accept; }}",
        *(f"add rule {table} drops {drop.rule()}" for drop in drops),
        # What it answers shows that all before it was done.
        f"list table {table}",
    ]
    process = await asyncio.create_subprocess_exec(
        TOOL, "--interactive", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while (line := (await process.stdout.readline()).decode()).strip() != "}":
                if not line or "error" in line.lower():
                    raise OSError(f"{TOOL}: {line.strip() or 'ended'}")
        yield
    finally:
        process.stdin.close()
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await process.wait()
