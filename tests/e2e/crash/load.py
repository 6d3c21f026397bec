"""What the clients of a crash test ask for: seeded orders, cancels and replaces, each with a key of its own."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from trademesh.oms.v1 import order_pb2, order_service_pb2
from trademesh.type.v1 import order_terms_pb2 as terms

ACCOUNTS = tuple(f"CRASH-{number}" for number in range(8))
QUANTITY_MAX = 100_000
"""What the mesh allows in one order of any instrument; more is refused by risk, which is an answer too."""

_BASES = {"AAPL": "232.56", "MSFT": "506.69", "NVDA": "174.18", "BTC-USD": "108410.05"}
_BUY, _SELL = terms.SIDE_BUY, terms.SIDE_SELL
_DAY, _GTC = terms.TIME_IN_FORCE_DAY, terms.TIME_IN_FORCE_GTC
_IOC, _FOK = terms.TIME_IN_FORCE_IOC, terms.TIME_IN_FORCE_FOK

Create = order_service_pb2.CreateOrderRequest
Cancel = order_service_pb2.CancelOrderRequest
Replace = order_service_pb2.ReplaceOrderRequest


@dataclass(frozen=True, slots=True)
class Command:
    """A request under its client's key. A client that is not patient asks once and walks away, whatever comes back."""

    account_id: str
    key: str
    request: Create | Cancel | Replace
    patient: bool = True

    @property
    def order_id(self) -> str:
        """The order that it is about; empty for a new one."""
        return "" if isinstance(self.request, Create) else self.request.order_id


class Load:
    """Draws commands. Prices that rest lie too far from the market to be reached; what trades, trades against the synthetic flow.

    Args:
        source: all chance comes from here.
        name: begins every key of an order.
    """

    def __init__(self, source: random.Random, name: str) -> None:
        self._random = source
        self._name = name
        self._count = 0
        self._replaced: set[str] = set()

    def orders(self, count: int, *, walk_away: float = 0.0) -> list[Command]:
        """Return new orders; the share `walk_away` is from clients that ask once."""
        return [self._command(self._order(), walk_away) for _ in range(count)]

    def resting(self, count: int) -> list[Command]:
        """Return new orders that rest until somebody cancels them."""
        commands = []
        for _ in range(count):
            order = self._order()
            order.type, order.time_in_force = terms.ORDER_TYPE_LIMIT, _GTC
            order.limit_price, order.quantity = self._far(order.instrument_id, order.side), self._quantity(order.instrument_id)
            commands.append(self._command(order, 0.0))
        return commands

    def other_price(self, order: order_pb2.Order) -> str:
        """Return a price at which a resting order goes on to rest."""
        return self._far(order.instrument_id, order.side)

    def changes(
        self, resting: Sequence[order_pb2.Order], count: int, *, walk_away: float = 0.0, replace_twice: bool = False
    ) -> list[Command]:
        """Return cancels and replaces of resting orders. Some orders are asked for both, so that requests meet.

        Two replaces of one order may both be approved and only one be recorded; the other is then settled at the orphans' bound, for which
        a test that says `replace_twice` has to wait.
        """
        commands = []
        for _ in range(count):
            order = self._random.choice(resting)
            cancels = self._random.random() < 0.5 or (order.order_id in self._replaced and not replace_twice)
            if not cancels:
                self._replaced.add(order.order_id)
            commands.append(self._command(self._cancel(order) if cancels else self._replace(order), walk_away))
        return commands

    def _command(self, request: Create | Cancel | Replace, walk_away: float) -> Command:
        key = request.client_order_id if isinstance(request, Create) else request.request_id
        return Command(request.account_id, key, request, patient=self._random.random() >= walk_away)

    def _order(self) -> Create:
        self._count += 1
        side = self._random.choice((_BUY, _SELL))
        instrument = self._random.choice(tuple(_BASES))
        order = Create(
            account_id=self._random.choice(ACCOUNTS),
            client_order_id=f"{self._name}-{self._count}",
            instrument_id=instrument,
            side=side,
            type=terms.ORDER_TYPE_LIMIT,
            quantity=self._quantity(instrument),
        )
        kind = self._random.random()
        if kind < 0.45:
            order.time_in_force = self._random.choice((_DAY, _GTC))
            order.limit_price = self._far(instrument, side)
        elif kind < 0.70:
            order.time_in_force = self._random.choice((_DAY, _GTC, _IOC, _FOK))
            order.limit_price = _price(_BASES[instrument], "1.2" if side == _BUY else "0.8")
        elif kind < 0.94:
            order.type = terms.ORDER_TYPE_MARKET
            order.time_in_force = self._random.choice((_DAY, _IOC, _FOK))
        elif kind < 0.97:
            order.time_in_force = self._random.choice((_IOC, _FOK))
            order.limit_price = self._far(instrument, side)
        else:
            order.time_in_force = _DAY
            order.limit_price = self._far(instrument, side)
            order.quantity = str(QUANTITY_MAX + self._count)
        return order

    def _quantity(self, instrument: str) -> str:
        # Another one each time: the same order twice within half a second is refused as a duplicate.
        return _text(Decimal(self._count) / (1_000 if instrument == "BTC-USD" else 1))

    def _far(self, instrument: str, side: int) -> str:
        share = self._random.randrange(60, 80) if side == _BUY else self._random.randrange(125, 145)
        return _price(_BASES[instrument], str(Decimal(share) / 100))

    def _cancel(self, order: order_pb2.Order) -> Cancel:
        return Cancel(account_id=order.account_id, order_id=order.order_id, request_id=self._request_id())

    def _replace(self, order: order_pb2.Order) -> Replace:
        request = Replace(account_id=order.account_id, order_id=order.order_id, request_id=self._request_id())
        if self._random.random() < 0.7:
            request.quantity = _text(Decimal(order.quantity) * self._random.choice((Decimal("0.5"), 2, 3)) // _lot(order) * _lot(order))
        if request.quantity in ("", "0") or self._random.random() < 0.3:
            request.ClearField("quantity")
            request.limit_price = self._far(order.instrument_id, order.side)
        return request

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def _lot(order: order_pb2.Order) -> Decimal:
    return Decimal("0.00000001") if order.instrument_id == "BTC-USD" else Decimal(1)


def _price(base: str, factor: str) -> str:
    return _text((Decimal(base) * Decimal(factor)).quantize(Decimal("0.01")))


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
