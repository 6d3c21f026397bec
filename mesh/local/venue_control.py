"""The sandbox exchange's operator protocol: one JSON object per line and answer, on its control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from mesh.local.layout import LocalMeshError

ANSWER_SECONDS_MAX = 10.0


def tell(control: Path, operation: str, **fields: Any) -> dict[str, Any]:
    """Carry out an operation, such as `flow.pause`, and return its answer.

    Raises:
        LocalMeshError: the exchange refused.
        OSError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS_MAX)
        connection.connect(str(control))
        connection.sendall(json.dumps({"op": operation, **fields}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline() or b'{"ok": false, "error": "no answer"}')
    if not answer.get("ok"):
        raise LocalMeshError(f"The exchange refused {operation}: {answer.get('error')}")
    return answer
