"""The life of an order, pure: `decide(order, command)` returns events, `evolve(order, event)` folds them."""

from svc_oms.domain.decide import abandoned, decide, place, rejected, replaced_terms, unsent
from svc_oms.domain.evolve import evolve, fold
from svc_oms.domain.state import Breach, ExecutionKey, Fill, Order, PendingRequest, Reject, Terms
from svc_oms.domain.vocabulary import TERMINAL, Action, ExecutionType, OrderState, OrderType, ReportKind, Side, TimeInForce

__all__ = [
    "TERMINAL",
    "Action",
    "Breach",
    "ExecutionKey",
    "ExecutionType",
    "Fill",
    "Order",
    "OrderState",
    "OrderType",
    "PendingRequest",
    "Reject",
    "ReportKind",
    "Side",
    "Terms",
    "TimeInForce",
    "abandoned",
    "decide",
    "evolve",
    "fold",
    "place",
    "rejected",
    "replaced_terms",
    "unsent",
]
