"""The latest prices of venues, as one replica has heard them. The moment of every question and every message arrives with it."""

from __future__ import annotations

from collections.abc import Mapping

from svc_portfolio.domain.valuation import Mark, Quote, mark_of

FRESH_SECONDS = 2.0
"""A venue that was not heard of for so long is not live; its marks stay, and are stale."""


class MarkBook:
    """Quotes by venue and instrument. What was heard is kept until something newer comes; without it a mark is stale, never made up."""

    def __init__(self) -> None:
        self._quotes: dict[str, dict[str, Quote]] = {}
        self._live_at: dict[str, float] = {}

    def take(self, venue: str, quotes: Mapping[str, Quote], *, live: bool, now: float) -> None:
        """Take what a venue said.

        Args:
            venue: whose feed.
            quotes: by instrument, only those that changed.
            live: whether whoever told it heard of the feed lately.
            now: monotonic seconds.
        """
        self._quotes.setdefault(venue, {}).update(quotes)
        if live:
            self._live_at[venue] = now
        else:
            self._live_at.pop(venue, None)

    def mark(self, venue: str, instrument_id: str, now: float) -> Mark | None:
        """Return the mark of an instrument; None where no price was ever heard of."""
        quote = self._quotes.get(venue, {}).get(instrument_id)
        return None if quote is None else mark_of(quote, live=self.live(venue, now))

    def live(self, venue: str, now: float) -> bool:
        """Say whether a venue was heard of within 2 seconds."""
        heard_at = self._live_at.get(venue)
        return heard_at is not None and now - heard_at < FRESH_SECONDS
