"""What happened in risk, as the exposure streams record it. Mirrors `trademesh.risk.v1`; `codec` maps one to the other."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from svc_risk.domain.check import Breach
from svc_risk.domain.vocabulary import Side


class ExposureDelta(NamedTuple):
    """A change of what an account has open, and where it stands afterwards. Limits are canonical text, empty where none is set."""

    account_id: str
    version: int
    instrument_id: str
    order_id: str
    side: Side
    quantity: Decimal
    notional: Decimal
    open_notional: Decimal
    gross: Decimal
    open_limit: str
    gross_limit: str


class ExposureReserved(NamedTuple):
    """An order was approved."""

    delta: ExposureDelta
    request_id: str
    reference: Decimal


class OrderRefused(NamedTuple):
    """An order was refused; the delta is zero."""

    delta: ExposureDelta
    request_id: str
    breaches: tuple[Breach, ...]


class ExposureReleased(NamedTuple):
    """Reserved exposure was released, by the order event named in `cause`."""

    delta: ExposureDelta
    cause: str


class ExposureAdjusted(NamedTuple):
    """A fact made an order's reservation larger without an approval: the venue restated or reinstated it, or it was accepted late."""

    delta: ExposureDelta
    cause: str
    in_breach: bool


class ExposureFilled(NamedTuple):
    """An execution moved exposure from open orders to the position. `position_delta` is positive where bought."""

    delta: ExposureDelta
    exec_id: str
    position_delta: Decimal
    position: Decimal
    price: Decimal
    in_breach: bool


ExposureEvent = ExposureReserved | OrderRefused | ExposureReleased | ExposureAdjusted | ExposureFilled
