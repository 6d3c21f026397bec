"""Synthetic order flow: participants around a drifting fundamental price, as a pure function of seed and tick.

Nothing here looks at the book or remembers anything: tick 1,000 can be computed without the 999 before it, so a venue that
restarts goes on where it stopped, and two venues with one seed see the same orders.

At every tick, of each instrument:

- one of `maker_count` makers cancels the ladder that it quoted a round ago and quotes a new one around the fundamental;
- now and then a taker crosses the spread with an immediate-or-cancel order, so that last prices move and resting orders fill;
- with `ample_depth`, one more participant keeps very large quantities a little behind the makers, so that any marketable
  order fills.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sandbox.exchange.engine.commands import CancelOrder, Command, NewOrder
from sandbox.exchange.engine.vocabulary import OrderType, Side, TimeInForce
from sandbox.exchange.instruments import Instrument

FLOW_OWNER = "FLOW"

_BASIS_POINTS = 10_000
# Periods in ticks and amplitudes in basis points of the prior close; their sum bounds how far the fundamental drifts.
_WAVES = ((4_096, 150), (512, 40), (64, 8))
_INTERPOLATION = 1 << 16
# Orders a side that stand behind the makers while depth is ample.
_AMPLE_LEVELS = 4


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How busy the synthetic participants are.

    Attributes:
        maker_count: makers per instrument; each quotes every `maker_count` ticks.
        levels: prices per side of a ladder.
        half_spread_bp: distance of a ladder's best price from the fundamental, in basis points of the price.
        step_bp: distance between its prices.
        taker_percent: chance that a taker comes, per instrument and tick.
        ample_depth: keep very large quantities behind the makers.
    """

    maker_count: int = 3
    levels: int = 3
    half_spread_bp: int = 2
    step_bp: int = 2
    taker_percent: int = 25
    ample_depth: bool = False


class Dice:
    """Random whole numbers out of a hash of seed and place: no state, the same on every machine."""

    __slots__ = ("_bits",)

    def __init__(self, *place: object) -> None:
        digest = hashlib.blake2b("|".join(map(str, place)).encode(), digest_size=32).digest()
        self._bits = int.from_bytes(digest, "big")

    def below(self, limit: int) -> int:
        """Return the next number, 0 to `limit` - 1; one place has 256 bits to give."""
        self._bits, number = divmod(self._bits, limit)
        return number


class SyntheticFlow:
    """The participants' orders of any tick.

    Args:
        seed: any whole number; equal seeds give equal flow.
        instruments: what to trade; the fundamental drifts around each one's initial close.
    """

    def __init__(self, seed: int, instruments: Mapping[str, Instrument], settings: FlowSettings | None = None) -> None:
        self._seed = seed
        self._instruments = instruments
        self.settings = settings or FlowSettings()

    def fundamental(self, symbol: str, tick: int) -> int:
        """Return the fundamental price of a tick, in price ticks, positive. Value noise: smooth, bounded, without memory."""
        base = self._instruments[symbol].initial_close
        drift = 0
        for period, amplitude_bp in _WAVES:
            node, rest = divmod(tick, period)
            left, right = (self._node(symbol, period, amplitude_bp, number) for number in (node, node + 1))
            drift += left + (right - left) * (rest * _INTERPOLATION // period) // _INTERPOLATION
        return max(base + base * drift // (_BASIS_POINTS * _INTERPOLATION), 1)

    def _node(self, symbol: str, period: int, amplitude_bp: int, number: int) -> int:
        """A wave's height in basis points, scaled by `_INTERPOLATION`; every wave starts at zero."""
        if number == 0:
            return 0
        limit = amplitude_bp * _INTERPOLATION
        return Dice(self._seed, symbol, period, number).below(2 * limit + 1) - limit

    def commands(self, tick: int, time_ns: int, symbols: Iterable[str] | None = None) -> Iterator[Command]:
        """Yield what the participants do at a tick, 0 or later.

        Args:
            symbols: the instruments that are open; all of them by default.
        """
        for symbol in self._instruments if symbols is None else symbols:
            instrument = self._instruments[symbol]
            yield from self._make(instrument, tick, time_ns)
            if self.settings.ample_depth:
                yield from self._deepen(instrument, tick, time_ns)
            dice = Dice(self._seed, symbol, "taker", tick)
            if dice.below(100) < self.settings.taker_percent:
                yield self._take(instrument, tick, time_ns, dice)

    def _distance(self, price: int, basis_points: int) -> int:
        return max(1, price * basis_points // _BASIS_POINTS)

    def _typical(self, instrument: Instrument) -> int:
        """A quantity in lots that looks ordinary: a thousandth of the largest value."""
        return max(1, min(instrument.quantity_max, instrument.value_max // instrument.initial_close) // 1_000)

    def _make(self, instrument: Instrument, tick: int, time_ns: int) -> Iterator[Command]:
        settings, symbol = self.settings, instrument.symbol
        maker = tick % settings.maker_count
        account = f"MAKER-{maker}"
        if tick >= settings.maker_count:
            yield from self._withdraw(symbol, "M", tick - settings.maker_count, tick, settings.levels, time_ns)
        middle = self.fundamental(symbol, tick)
        typical = self._typical(instrument)
        dice = Dice(self._seed, symbol, "maker", tick)
        for level in range(settings.levels):
            distance = self._distance(middle, settings.half_spread_bp) + level * self._distance(middle, settings.step_bp) + dice.below(2)
            for side in Side:
                price = max(middle - distance, 1) if side is Side.BUY else middle + distance
                quantity = typical // 2 + dice.below(typical) + 1
                client_order_id = f"M{tick}-{symbol}-{level}{side}"
                yield self._limit(time_ns, account, client_order_id, symbol, side, quantity, price)

    def _deepen(self, instrument: Instrument, tick: int, time_ns: int) -> Iterator[Command]:
        """Renew, at every tick, a few very large orders a side just behind the makers' best."""
        symbol = instrument.symbol
        if tick:
            yield from self._withdraw(symbol, "D", tick - 1, tick, _AMPLE_LEVELS, time_ns)
        middle = self.fundamental(symbol, tick)
        for level in range(_AMPLE_LEVELS):
            distance = self._distance(middle, self.settings.half_spread_bp + (level + 1) * self.settings.step_bp)
            for side in Side:
                price = max(middle - distance, 1) if side is Side.BUY else middle + distance
                quantity = max(1, min(instrument.quantity_max, instrument.value_max // price))
                yield self._limit(time_ns, "DEPTH", f"D{tick}-{symbol}-{level}{side}", symbol, side, quantity, price)

    def _take(self, instrument: Instrument, tick: int, time_ns: int, dice: Dice) -> NewOrder:
        side = Side.BUY if dice.below(2) else Side.SELL
        quantity = self._typical(instrument) // 4 + dice.below(self._typical(instrument)) + 1
        middle = self.fundamental(instrument.symbol, tick)
        reach = self._distance(middle, self.settings.half_spread_bp + 4 * self.settings.step_bp)
        price = middle + reach if side is Side.BUY else max(middle - reach, 1)
        return NewOrder(
            time_ns, FLOW_OWNER, f"TAKER-{dice.below(8)}", f"T{tick}-{instrument.symbol}", instrument.symbol, side, OrderType.LIMIT,
            TimeInForce.IMMEDIATE_OR_CANCEL, quantity, price,
        )  # fmt: skip

    def _withdraw(self, symbol: str, kind: str, quoted: int, tick: int, levels: int, time_ns: int) -> Iterator[CancelOrder]:
        """Cancel a ladder; what was filled in the meantime is refused by the engine, which is harmless."""
        for level in range(levels):
            for side in Side:
                orig = f"{kind}{quoted}-{symbol}-{level}{side}"
                yield CancelOrder(time_ns, FLOW_OWNER, f"C{tick}{kind}-{symbol}-{level}{side}", orig, symbol, side)

    @staticmethod
    def _limit(time_ns: int, account: str, client_order_id: str, symbol: str, side: Side, quantity: int, price: int) -> NewOrder:
        return NewOrder(
            time_ns, FLOW_OWNER, account, client_order_id, symbol, side, OrderType.LIMIT, TimeInForce.GOOD_TILL_CANCEL, quantity, price
        )
