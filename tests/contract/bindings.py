"""The tables of the services, without the services: what serves is anything that has every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from kernel.config import Secret
from kernel.eventlog_servicer import event_log_binding
from kernel.paging import PageTokens
from kernel.server_policy import ServiceBinding
from svc_custody import main as custody
from svc_marketdata import main as marketdata
from svc_oms import main as oms
from svc_portfolio import main as portfolio
from svc_reporting import main as reporting
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


def _marketdata() -> list[ServiceBinding]:
    return marketdata.bindings(_ANYTHING, _ANYTHING, _ANYTHING, _ANYTHING, _ANYTHING)


def _custody() -> list[ServiceBinding]:
    return custody.bindings(_ANYTHING, _ANYTHING, _ANYTHING, _ANYTHING, _ANYTHING, "firm", sandbox=True)


def _portfolio() -> list[ServiceBinding]:
    return portfolio.bindings(_ANYTHING, _ANYTHING)


def _reporting() -> list[ServiceBinding]:
    return reporting.bindings(_ANYTHING, _ANYTHING, _ANYTHING)


SERVED: dict[str, Callable[[], list[ServiceBinding]]] = {
    "svc_custody": _custody,
    "svc_marketdata": _marketdata,
    "svc_oms": _oms,
    "svc_portfolio": _portfolio,
    "svc_reporting": _reporting,
    "svc_risk": _risk,
}
