"""Lists in pages (AIP-158): a bounded `page_size` and an opaque `page_token` that fits only the list and filters that issued it."""

from __future__ import annotations

from kernel.config import Secret
from kernel.errors import FieldViolation, InvalidArgumentError, Reason
from kernel.tokens import TokenError, TokenSealer

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000


def page_size(asked: int, *, default: int = PAGE_SIZE_DEFAULT, maximum: int = PAGE_SIZE_MAX) -> int:
    """Return how many items a page gets: the default for 0, at most the maximum, as AIP-158 wants it.

    Raises:
        InvalidArgumentError: FIELD_INVALID, a negative size.
    """
    if asked < 0:
        violation = FieldViolation("page_size", "int32.gte", "must not be negative")
        raise InvalidArgumentError(Reason.FIELD_INVALID, "page_size must not be negative", field_violations=(violation,))
    return min(asked or default, maximum)


class PageTokens:
    """Page tokens of one deployment. A token holds the key of the last item of the page before; it survives restarts and other replicas."""

    def __init__(self, key: Secret) -> None:
        self._sealer = TokenSealer(key, "page")

    def issue(self, list_name: str, filters: tuple[str, ...], last_key: str) -> str:
        """Return the token of the page after `last_key` (at most 256 bytes); `filters` are all the request's texts that select items."""
        return self._sealer.seal(last_key.encode(), (list_name, *filters))

    def read(self, list_name: str, filters: tuple[str, ...], token: str) -> str | None:
        """Return the key after which the page begins; None for the first page, which an empty token asks for.

        Raises:
            InvalidArgumentError: PAGE_TOKEN_INVALID, the token is not one of this list with these filters.
        """
        if not token:
            return None
        try:
            return self._sealer.open(token, (list_name, *filters)).decode()
        except (TokenError, UnicodeDecodeError):
            text = "is not a page token of this list with these filters"
            violation = FieldViolation("page_token", "page_token", text)
            raise InvalidArgumentError(Reason.PAGE_TOKEN_INVALID, f"page_token {text}", field_violations=(violation,)) from None
