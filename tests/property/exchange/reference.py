"""A second matching engine, written to be obviously right and to share nothing with the first: one list, scanned every time."""

from dataclasses import dataclass, field


@dataclass
class Resting:
    """An order in the naive book. `arrival` decides among equal prices."""

    name: str
    owner: tuple[str, str]
    is_buy: bool
    price: int
    leaves: int
    total: int
    arrival: int
    cum: int = 0


@dataclass
class NaiveBook:
    """Price-time priority by sorting everything; self-trade prevention cancels the newcomer's rest."""

    resting: list[Resting] = field(default_factory=list)
    trades: list[tuple[str, str, int, int]] = field(default_factory=list)
    arrivals: int = 0

    def _candidates(self, is_buy: bool, limit: int | None) -> list[Resting]:
        found = [
            order
            for order in self.resting
            if order.is_buy is not is_buy and (limit is None or (order.price <= limit if is_buy else order.price >= limit))
        ]
        return sorted(found, key=lambda order: (order.price if is_buy else -order.price, order.arrival))

    def enter(
        self, name: str, owner: tuple[str, str], is_buy: bool, limit: int | None, quantity: int, *, rests: bool, whole: bool, cum: int = 0
    ) -> None:
        """Match a newcomer and keep its rest if it rests."""
        plan: list[tuple[Resting, int]] = []
        left, own = quantity, False
        for maker in self._candidates(is_buy, limit):
            if left == 0:
                break
            if maker.owner == owner:
                own = True
                break
            plan.append((maker, min(left, maker.leaves)))
            left -= plan[-1][1]
        if whole and left:
            return
        for maker, taken in plan:
            maker.leaves -= taken
            maker.cum += taken
            self.trades.append((name, maker.name, maker.price, taken))
        self.resting = [order for order in self.resting if order.leaves]
        if left and rests and not own and limit is not None:
            self.arrivals += 1
            total = cum + quantity
            self.resting.append(Resting(name, owner, is_buy, limit, left, total, self.arrivals, cum + quantity - left))

    def find(self, name: str) -> Resting | None:
        """The resting order of that name."""
        return next((order for order in self.resting if order.name == name), None)

    def cancel(self, name: str) -> None:
        """Take an order out."""
        self.resting = [order for order in self.resting if order.name != name]

    def replace(self, name: str, total: int, price: int) -> None:
        """Give a resting order a new total and price."""
        order = self.find(name)
        if order is None:
            return
        left = total - order.cum
        if left <= 0:
            self.cancel(name)
        elif price == order.price and total <= order.total:
            order.leaves, order.total = left, total
        else:
            self.cancel(name)
            self.enter(name, order.owner, order.is_buy, price, left, rests=True, whole=False, cum=order.cum)

    def queue(self, is_buy: bool) -> list[tuple[str, int, int]]:
        """One side as (name, price, leaves), best first."""
        side = [order for order in self.resting if order.is_buy is is_buy]
        side.sort(key=lambda order: (-order.price if is_buy else order.price, order.arrival))
        return [(order.name, order.price, order.leaves) for order in side]
