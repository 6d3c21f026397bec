"""Addresses of the instances: a block of 127.0.0.0/8 for each mesh on a machine, so that two of them never meet."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from mesh.local.layout import LocalMeshError

INSTANCES_MAX = 250
EDGE_NUMBER = 254
"""The edge's last byte in the block, beyond all instances'."""
_BLOCKS_TRIED_MAX = 64


def is_free(address: str, port: int) -> bool:
    """Return whether nobody listens on a TCP port of a loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def edge_address(instance_address: str) -> str:
    """Return the address in an instance's block from which the edge calls."""
    return f"{instance_address.rpartition('.')[0]}.{EDGE_NUMBER}"


def choose_addresses(
    root: Path, instances: Sequence[str], ports: Sequence[int], *, free: Callable[[str, int], bool] = is_free
) -> dict[str, str]:
    """Return an address for each instance, all of one block that follows from the state directory unless somebody else is in it.

    Raises:
        LocalMeshError: there are too many instances, or no block is free.
    """
    if len(instances) > INSTANCES_MAX:
        raise LocalMeshError(f"A mesh on one machine has at most {INSTANCES_MAX} instances with a sidecar, not {len(instances)}.")
    for attempt in range(_BLOCKS_TRIED_MAX):
        digest = hashlib.sha256(os.fsencode(root.absolute()) + bytes([attempt])).digest()
        # 127.0 and 127.1 are where people put things by hand.
        block = f"127.{2 + digest[0] % 253}.{digest[1]}"
        addresses = {instance: f"{block}.{number}" for number, instance in enumerate(instances, start=1)}
        if all(free(address, port) for address in addresses.values() for port in ports):
            return addresses
    raise LocalMeshError(f"No block of loopback addresses is free on TCP port {', '.join(str(port) for port in ports)}.")
