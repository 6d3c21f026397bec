"""An account's risk on the wire."""

from __future__ import annotations

from kernel.event_records import to_position
from kernel.ports import LogPosition
from svc_risk.codec.amounts import text
from svc_risk.codec.resources import write_limit
from svc_risk.domain.exposure import InstrumentExposure
from svc_risk.domain.policy import Account
from svc_risk.domain.reference_price import PriceSource, ReferencePrice
from svc_risk.domain.risk_state import RiskState
from trademesh.risk.v1 import risk_service_pb2


def write_risk_state(account: Account, state: RiskState, order_position: LogPosition) -> risk_service_pb2.GetRiskStateResponse:
    """Return an account's risk; `order_position` is that of svc_oms's log up to which order events are included."""
    exposure = state.account
    return risk_service_pb2.GetRiskStateResponse(
        account_id=account.account_id,
        currency=account.currency,
        open_buy_notional=text(exposure.buy_notional),
        open_sell_notional=text(exposure.sell_notional),
        gross_exposure=text(exposure.gross),
        reservation_count=exposure.reservation_count,
        instruments=[_position(instrument_id, position) for instrument_id, position in sorted(state.positions.items())],
        limits=[write_limit(limit) for limit in state.limits],
        in_breach=state.in_breach,
        version=exposure.version,
        order_log_position=to_position(order_position),
    )


def write_reference_price(instrument_id: str, venue: str, price: ReferencePrice) -> risk_service_pb2.DecisionPrice:
    """Return a reference price with the venue that named it."""
    return risk_service_pb2.DecisionPrice(
        instrument_id=instrument_id, venue=venue, price=text(price.price), source=_SOURCES[price.source], fresh=price.fresh
    )


_SOURCES = {
    PriceSource.MID: risk_service_pb2.DECISION_PRICE_SOURCE_MID,
    PriceSource.LAST_TRADE: risk_service_pb2.DECISION_PRICE_SOURCE_LAST_TRADE,
    PriceSource.PRIOR_CLOSE: risk_service_pb2.DECISION_PRICE_SOURCE_PRIOR_CLOSE,
}


def _position(instrument_id: str, position: InstrumentExposure) -> risk_service_pb2.InstrumentExposure:
    return risk_service_pb2.InstrumentExposure(
        instrument_id=instrument_id,
        position_quantity=text(position.position),
        open_buy_quantity=text(position.buy_quantity),
        open_buy_notional=text(position.buy_notional),
        open_sell_quantity=text(position.sell_quantity),
        open_sell_notional=text(position.sell_notional),
        position_notional=text(abs(position.position_notional)),
    )
