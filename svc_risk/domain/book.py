"""The fold of one transaction: state that was read under locks, decisions and facts in order, and what has to be written back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from kernel.errors import Reason
from kernel.values import ZERO
from svc_risk.domain import events as e
from svc_risk.domain.check import Approval, FirstAnswer, Invalidity, OrderCheck, Outcome, Refusal
from svc_risk.domain.decide import Facts, decide
from svc_risk.domain.exposure import FLAT, NOTHING, AccountExposure, Held, InstrumentExposure, filled, marked, shifted, summed
from svc_risk.domain.market import Market, market_at
from svc_risk.domain.policy import UNBOUND, AccountPolicy, Policy, limit_text
from svc_risk.domain.rate import NO_MESSAGES, RateWindow, counted, messages, tick_of
from svc_risk.domain.reference_price import ReferencePrice
from svc_risk.domain.reservation import (
    Accepted,
    Ended,
    Executed,
    OrderFact,
    Reservation,
    ReservationStatus,
    begun,
    evolve,
)
from svc_risk.domain.vocabulary import CheckKind, Side

REPLACE_GIVEN_UP = "risk.v1.ReplaceGivenUp"
"""Cause of a release that no order event explains: an approved replace of which svc_oms knows nothing."""

Position = tuple[str, str]
"""(account id, instrument id)."""

_BUY, _NEW = Side.BUY, CheckKind.NEW
_UNCONFIRMED = ReservationStatus.UNCONFIRMED
_MICROSECOND = timedelta(microseconds=1)


class Decided(NamedTuple):
    """A check whose outcome is recorded, with the order's reservation as it stood after it."""

    check: OrderCheck
    outcome: Approval | Refusal
    reservation: Reservation


class Remembered(NamedTuple):
    """The recorded answer of an earlier request."""

    payload_hash: bytes
    answer: bytes


class Book:
    """What one transaction knows and changes.

    Args:
        moment: the database's clock, read under the locks.
        policy: what is in force.
        accounts: exposures of the accounts that are locked.
        positions: exposures by (account, instrument); absent means flat.
        reservations: by order id.
        traders: message counts of the traders that are locked.
        references: reference prices by instrument.
        remembered: recorded answers by request id.
        duplicates: when each duplicate key was last approved.
    """

    def __init__(
        self,
        *,
        moment: datetime,
        policy: Policy,
        accounts: dict[str, AccountExposure],
        positions: dict[Position, InstrumentExposure] | None = None,
        reservations: dict[str, Reservation] | None = None,
        traders: dict[str, RateWindow] | None = None,
        references: Mapping[str, ReferencePrice] | None = None,
        remembered: Mapping[str, Remembered] | None = None,
        duplicates: dict[int, datetime] | None = None,
    ) -> None:
        self.moment = moment
        self.policy = policy
        self.accounts = accounts
        self.positions = positions if positions is not None else {}
        self.reservations = reservations if reservations is not None else {}
        self.traders = traders if traders is not None else {}
        self.events: list[e.ExposureEvent] = []
        self.decided: list[Decided] = []
        self.changed_accounts: set[str] = set()
        self.changed_positions: set[Position] = set()
        self.changed_reservations: set[str] = set()
        self.changed_traders: set[str] = set()
        self.asked_again: set[str] = set()
        self._references = references if references is not None else {}
        self._remembered = remembered if remembered is not None else {}
        self._duplicates = duplicates if duplicates is not None else {}
        self._outcomes: dict[str, tuple[bytes, Outcome]] = {}
        self._markets: dict[str, Market] = {}
        self._tick = tick_of(moment)

    def check(self, check: OrderCheck) -> Outcome:
        """Decide one check on the state that the earlier ones left, and fold an approval into it. A repetition changes nothing."""
        known = self._known(check)
        if known is not None:
            self._note_repetition(check)
            return known
        facts = self._facts(check)
        outcome = decide(facts)
        if isinstance(outcome, Approval):
            self._reserve(facts, outcome)
        elif isinstance(outcome, Refusal):
            self._refuse(check, outcome)
        else:
            return outcome
        self._outcomes[check.request_id] = check.payload_hash, outcome
        return outcome

    def _note_repetition(self, check: OrderCheck) -> None:
        """A replace that is asked for again while it waits to be recorded is about to be: it is no orphan yet."""
        reservation = self.reservations.get(check.order_id) if check.kind is not _NEW else None
        if reservation is not None and (check.request_id, False) in [(terms.request_id, terms.confirmed) for terms in reservation.pending]:
            self.asked_again.add(check.request_id)

    def _known(self, check: OrderCheck) -> Outcome | None:
        outcome: Outcome
        remembered, decided = self._remembered.get(check.request_id), self._outcomes.get(check.request_id)
        if remembered is not None:
            payload_hash, outcome = remembered.payload_hash, FirstAnswer(remembered.answer)
        elif decided is not None:
            payload_hash, outcome = decided
        else:
            return None
        if payload_hash == check.payload_hash:
            return outcome
        return Invalidity(Reason.IDEMPOTENCY_KEY_REUSED, (), "the request id was used for another command")

    def _facts(self, check: OrderCheck) -> Facts:
        account_id, tick = check.account_id, self._tick
        binds = self.policy.binding(account_id, check.principal, check.instrument_id)
        position = self._marked(account_id, check.instrument_id)
        # Only now: valuing the position has moved the account's sum with it.
        exposure = self.accounts.get(account_id)
        return Facts(
            check,
            binds,
            self._market(check.instrument_id),
            exposure,
            position,
            self.reservations.get(check.order_id) if check.kind is not _NEW else None,
            messages(exposure.rate, tick) if exposure is not None else 0,
            messages(self.traders.get(check.principal, NO_MESSAGES), tick) if binds.trader.message_rate is not None else 0,
            check.duplicate_key in self._duplicates and self._is_duplicate(check, binds.account),
        )

    def _market(self, instrument_id: str) -> Market:
        known = self._markets.get(instrument_id)
        if known is None:
            instrument, reference = self.policy.instruments.get(instrument_id), self._references.get(instrument_id)
            known = self._markets[instrument_id] = market_at(instrument, reference, self.moment)
        return known

    def _marked(self, account_id: str, instrument_id: str) -> InstrumentExposure:
        """The exposure at the price of the moment; the account's sum moves with it, so that both always agree."""
        key = account_id, instrument_id
        position = self.positions.get(key, FLAT)
        reference = self._references.get(instrument_id)
        if reference is None or reference.price == position.mark:
            return position
        valued = marked(position, reference.price)
        account = self.accounts.get(account_id)
        if account is None:
            return valued
        self.positions[key] = valued
        if position.position:
            self.accounts[account_id] = summed(account, position, valued)
            self.changed_positions.add(key)
            self.changed_accounts.add(account_id)
        return valued

    def revalue(self, account_id: str) -> None:
        """Value every position of an account at the prices of the moment. All its positions must have been read."""
        for key in [key for key in self.positions if key[0] == account_id]:
            self._marked(*key)
        self.accounts[account_id] = self.accounts[account_id]._replace(marked_at=self.moment)
        self.changed_accounts.add(account_id)

    def _is_duplicate(self, check: OrderCheck, account: AccountPolicy | None) -> bool:
        # A replace names its order, so it cannot be a second order by mistake.
        approved = self._duplicates.get(check.duplicate_key)
        if approved is None or account is None or check.kind is not _NEW:
            return False
        window = account.bounds.duplicate_window
        return window is not None and (self.moment - approved) // _MICROSECOND < window.value * 1_000_000

    def _reserve(self, facts: Facts, approval: Approval) -> None:
        check, binds, _, exposure, position, held = facts[:6]
        assert exposure is not None, "an approval is for an account"
        order_id, principal = check.order_id, check.principal
        if check.kind is _NEW:
            before, count = NOTHING, 1
            reservation = Reservation(
                order_id, check.account_id, check.instrument_id, check.side, _UNCONFIRMED, check.quantity, approval.price
            )
            self._duplicates[check.duplicate_key] = self.moment
        else:
            assert held is not None, "an approved replace is of an order"
            before, count = held.held, 0
            reservation = held.with_pending(check.request_id, check.quantity, approval.price)
            self.changed_reservations.add(order_id)
        self.reservations[order_id] = reservation
        if binds.trader.message_rate is not None:
            self.traders[principal] = counted(self.traders.get(principal, NO_MESSAGES), self._tick)
            self.changed_traders.add(principal)
        rate = counted(exposure.rate, self._tick)
        account = summed(exposure, position, approval.exposure, reservations=count, events=1, rate=rate)
        self._put((check.account_id, check.instrument_id), approval.exposure, account)
        delta = self._delta(reservation, before, approval.held, account)
        self.events.append(e.ExposureReserved(delta, check.request_id, approval.reference))
        self.decided.append(Decided(check, approval, reservation))

    def _refuse(self, check: OrderCheck, refusal: Refusal) -> None:
        price = check.limit_price if check.limit_price is not None else ZERO
        reservation = self.reservations.get(check.order_id) if check.kind is not _NEW else None
        if reservation is None:
            reservation = Reservation(
                check.order_id, check.account_id, check.instrument_id, check.side, ReservationStatus.REFUSED, check.quantity, price
            )
        delta = self._shift(reservation, NOTHING, NOTHING, 0)
        self.events.append(e.OrderRefused(delta, check.request_id, refusal.breaches))
        self.decided.append(Decided(check, refusal, reservation))

    def _shift(self, reservation: Reservation, before: Held, after: Held, count: int, bought: Decimal = ZERO) -> e.ExposureDelta:
        """Move the exposure with an order's reservation and fills, and make the next version of the account's."""
        account_id, _ = key = reservation.account_id, reservation.instrument_id
        old = new = self.positions.get(key, FLAT)
        if before is not after:
            new = shifted(new, reservation.side, before, after)
        if bought:
            new = filled(new, bought)
        account = summed(self.accounts[account_id], old, new, reservations=count, events=1)
        self._put(key, new if new is not old else None, account)
        return self._delta(reservation, before, after, account)

    def _put(self, key: Position, position: InstrumentExposure | None, account: AccountExposure) -> None:
        if position is not None:
            self.positions[key] = position
            self.changed_positions.add(key)
        self.accounts[key[0]] = account
        self.changed_accounts.add(key[0])

    def _delta(self, reservation: Reservation, before: Held, after: Held, account: AccountExposure) -> e.ExposureDelta:
        order_id, account_id, instrument_id, side = reservation[:4]
        policy = self.policy.accounts.get(account_id)
        limits = UNBOUND if policy is None else policy.bounds
        return e.ExposureDelta(
            account_id,
            account.version,
            instrument_id,
            order_id,
            side,
            after.quantity if before is NOTHING else after.quantity - before.quantity,
            after.notional if before is NOTHING else after.notional - before.notional,
            account.open_notional,
            account.gross,
            limit_text(limits.open_exposure),
            limit_text(limits.gross_exposure),
        )

    def apply(self, order_id: str, fact: OrderFact, cause: str) -> None:
        """Fold a fact that svc_oms recorded. A repetition changes nothing; facts are never refused.

        Args:
            order_id: the order.
            fact: what happened.
            cause: the stable name of the event that says so.

        Raises:
            ValueError: the order's first event is missing.
        """
        old = self.reservations.get(order_id)
        if old is None:
            if isinstance(fact, Ended) and fact.version == 1:
                # Refused or given up before risk ever reserved: nothing to release.
                return
            if not isinstance(fact, Accepted):
                raise ValueError(f"order {order_id}: version {fact.version} without a beginning")
            new, before, count = begun(fact, self._last_price(fact.terms.instrument_id)), NOTHING, 1
        else:
            new, before = evolve(old, fact, self._last_price(old.instrument_id)), old.held
            if new is old:
                return
            count = new.live - old.live
        self.reservations[order_id] = new
        self.changed_reservations.add(order_id)
        after = new.held
        if isinstance(fact, Executed):
            assert old is not None
            self._record_fill(new, before, after, count, new.filled - old.filled, fact)
        elif before != after or count:
            delta = self._shift(new, before, after, count)
            grown = after.notional > before.notional or after.quantity > before.quantity
            breach = self.in_breach(new.account_id)
            self.events.append(e.ExposureAdjusted(delta, cause, breach) if grown else e.ExposureReleased(delta, cause))

    def seen(self, order_id: str, version: int) -> None:
        """Note that an order's events are folded in up to a version, those that move nothing included."""
        reservation = self.reservations.get(order_id)
        if reservation is not None and reservation.order_version < version:
            self.reservations[order_id] = reservation._replace(order_version=version)
            self.changed_reservations.add(order_id)

    def _last_price(self, instrument_id: str) -> Decimal:
        reference = self._references.get(instrument_id)
        return reference.price if reference is not None else ZERO

    def confirm(self, order_id: str) -> None:
        """Note that an order stands behind a reservation, though its first event has not come yet."""
        reservation = self.reservations[order_id]
        if reservation.status is _UNCONFIRMED:
            self.reservations[order_id] = reservation._replace(status=ReservationStatus.CONFIRMED)
            self.changed_reservations.add(order_id)

    def drop_pending(self, order_id: str, request_id: str) -> None:
        """Give up an approved replace that svc_oms never recorded; the terms in force stand."""
        old = self.reservations[order_id]
        new = old.without_pending(request_id)
        if new is old:
            return
        self.reservations[order_id] = new
        self.changed_reservations.add(order_id)
        delta = self._shift(new, old.held, new.held, new.live - old.live)
        self.events.append(e.ExposureReleased(delta, REPLACE_GIVEN_UP))

    def _record_fill(self, new: Reservation, before: Held, after: Held, count: int, quantity: Decimal, fact: Executed) -> None:
        key = new.account_id, new.instrument_id
        position = self.positions.get(key, FLAT)
        if not position.mark:
            # No feed ever named a price; the execution does.
            self.positions[key] = marked(position, fact.price)
        bought = quantity if new.side is _BUY else -quantity
        delta = self._shift(new, before, after, count, bought)
        breach = self.in_breach(new.account_id)
        self.events.append(e.ExposureFilled(delta, fact.exec_id, bought, self.positions[key].position, fact.price, breach))

    def in_breach(self, account_id: str) -> bool:
        """Say whether an account stands above one of its exposure limits."""
        account, policy = self.accounts[account_id], self.policy.accounts.get(account_id)
        if policy is None:
            return False
        open_limit, gross_limit = policy.bounds.open_exposure, policy.bounds.gross_exposure
        return (open_limit is not None and account.open_notional > open_limit.value) or (
            gross_limit is not None and account.gross > gross_limit.value
        )
