"""The tables of the services, without the services: what serves is anything that has every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from kernel.config import Secret
from kernel.eventlog_servicer import event_log_binding
from kernel.paging import PageTokens
from kernel.server_policy import ServiceBinding
from svc_oms import main as oms
from svc_risk import main as risk


class _Anything:
    """Has every attribute, and is called for nothing here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Anything()


_ANYTHING = cast("Any", _Anything())


def _oms() -> list[ServiceBinding]:
    return [oms.order_binding(_ANYTHING), oms.control_binding(_ANYTHING), event_log_binding(_ANYTHING, *oms.LOG_READERS)]


def _risk() -> list[ServiceBinding]:
    return risk.bindings(_ANYTHING, _ANYTHING, _ANYTHING, PageTokens(Secret("x" * 32)), "firm")


SERVED: dict[str, Callable[[], list[ServiceBinding]]] = {"svc_oms": _oms, "svc_risk": _risk}
