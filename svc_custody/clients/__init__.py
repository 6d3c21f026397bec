"""Outside knowledge behind Protocols: calendars."""
