"""Which web pages may open sockets (RFC 6455 §10.2): a browser sends cookies and tickets for any page, but always says whose page it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kernel.errors import PermissionDeniedError, Reason

ORIGIN_PATTERN = r"https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?"
_ORIGIN = re.compile(ORIGIN_PATTERN, re.ASCII)


def require_origin(headers: Sequence[str], allowed: frozenset[str], *, required: bool) -> str:
    """Return the request's origin (RFC 6454 §7), empty where none came and none is required.

    Args:
        headers: every Origin header of the request.
        allowed: origins as browsers write them: scheme, host in small letters, port unless it is the scheme's own.
        required: whether a request without one is refused.

    Raises:
        PermissionDeniedError: ORIGIN_NOT_ALLOWED.
    """
    if not headers and not required:
        return ""
    if not headers:
        raise PermissionDeniedError(Reason.ORIGIN_NOT_ALLOWED, "a ticket is for web pages, and a web page's request has an Origin header")
    if len(headers) > 1 or _ORIGIN.fullmatch(headers[0]) is None or headers[0] not in allowed:
        raise PermissionDeniedError(
            Reason.ORIGIN_NOT_ALLOWED, "pages of this origin may not open sockets", metadata={"origin": headers[0][:128]}
        )
    return headers[0]
