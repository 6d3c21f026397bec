"""What kind of contradiction a finding is, where a count of its kind is kept; any other finding is plain text."""

from __future__ import annotations


class Lost(str):
    """Something was acknowledged and is not there."""

    __slots__ = ()


class Doubled(str):
    """Something is there, or happened, twice."""

    __slots__ = ()


class AboveLimit(str):
    """An approval committed an exposure above the limit then in force."""

    __slots__ = ()


class Unresolved(str):
    """Asking by key does not tell what became of a command whose outcome was unknown."""

    __slots__ = ()
