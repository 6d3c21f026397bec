"""The OpenAPI document as it is served: that of the contracts, and the gateway's own path beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TAG = "Gateway"

_TICKETS: dict[str, Any] = {
    "post": {
        "operationId": "Gateway_CreateTicket",
        "tags": [TAG],
        "summary": "Issues a ticket with which a web page opens one socket, once, within 30 seconds.",
        "description": "Issues a ticket with which a web page opens one socket, once, within 30 seconds. "
        "Offer it as the second subprotocol: "
        "`new WebSocket(url, ['trademesh.v1+json', 'ticket.' + ticket])`. Example: `POST /v1/ws/tickets`.",
        "responses": {
            "200": {
                "description": "OK",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {
                                "ticket": {"type": "string", "description": "43 characters; never part of a URL."},
                                "expire_time": {"type": "string", "format": "date-time", "description": "When it is no longer good."},
                            },
                        }
                    }
                },
            },
            "default": {
                "description": "The error, with typed details.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/google.rpc.Status"}}},
            },
        },
    }
}


def read_document(path: Path) -> dict[str, Any]:
    """Return the document of a file with the gateway's path added.

    Raises:
        OSError, ValueError: it cannot be read, or is not an OpenAPI 3 document.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise ValueError(f"{path} is not an OpenAPI 3 document")
    document["tags"] = [*document["tags"], {"name": TAG, "description": "Opens sockets, over which reads and streams go side by side."}]
    document["paths"] = {**document["paths"], "/v1/ws/tickets": _TICKETS}
    return document
