"""The whole audit: every rule over one history."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.chain.auditor import answers, exposures, orders, streams
from tests.simulation.chain.auditor.venue import VenueBook
from tests.simulation.chain.auditor.view import Audited, Violation
from tests.simulation.chain.history import History

RULES = (
    answers.acknowledged_is_durable,
    answers.changes_are_durable,
    answers.replays_are_identical,
    answers.unknown_outcomes_resolve,
    orders.streams_are_whole,
    orders.terminal_states_stay,
    orders.killed_orders_are_not_sent,
    orders.killed_orders_do_not_leave,
    orders.one_number_one_message,
    streams.streams_tell_everything,
    exposures.limits_hold,
    exposures.exposures_are_open_orders,
)
VENUE_RULES = (exposures.approval_comes_first, exposures.fills_count_once, exposures.positions_are_fills)


def comes_to_rest(history: History) -> Iterator[Violation]:
    """Once everything is healed, the system comes to rest in time, and nothing went wrong inside on the way."""
    for text in history.unrest:
        yield Violation("comes-to-rest", text)
    for text in history.defects:
        yield Violation("no-defects", text)


def audit(history: History) -> list[Violation]:
    """Return every violation, none for a good run."""
    audited, venue = Audited(history), VenueBook(history.venue)
    found = list(comes_to_rest(history))
    for rule in RULES:
        found += rule(audited)
    for venue_rule in VENUE_RULES:
        found += venue_rule(audited, venue)
    return found
