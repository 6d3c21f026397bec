"""Tokens fit what they were issued for, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.config import Secret
from kernel.errors import InvalidArgumentError, Reason
from kernel.paging import PageTokens, page_size
from kernel.tokens import TokenError, TokenSealer

KEY = Secret("k" * 32)


@given(payload=st.binary(max_size=256), binding=st.lists(st.text(), max_size=4))
def test_a_sealed_payload_comes_back(payload: bytes, binding: list[str]) -> None:
    sealer = TokenSealer(KEY, "page")
    token = sealer.seal(payload, binding)
    assert len(token) <= 512
    assert sealer.open(token, binding) == payload


@pytest.mark.parametrize("binding", [("ab", "d"), ("a", "bd"), ("abd",), (), ("a", "b", "c", "d")])
def test_a_token_does_not_move(binding: tuple[str, ...]) -> None:
    token = TokenSealer(KEY, "page").seal(b"x", ("a", "b", "d"))
    with pytest.raises(TokenError):
        TokenSealer(KEY, "page").open(token, binding)
    with pytest.raises(TokenError):
        TokenSealer(KEY, "resume").open(token, ("a", "b", "d"))
    with pytest.raises(TokenError):
        TokenSealer(Secret("l" * 32), "page").open(token, ("a", "b", "d"))


@given(st.text())
def test_anything_else_is_no_token(text: str) -> None:
    with pytest.raises(TokenError):
        TokenSealer(KEY, "page").open(text, ())


def test_a_payload_is_bounded_and_a_key_is_long() -> None:
    with pytest.raises(ValueError, match="256"):
        TokenSealer(KEY, "page").seal(b"x" * 257, ())
    with pytest.raises(ValueError, match="32"):
        TokenSealer(Secret("short"), "page")


def test_pages_follow_one_another_only_under_the_same_filters() -> None:
    tokens = PageTokens(KEY)
    assert tokens.read("orders", ("ACC-1",), "") is None
    token = tokens.issue("orders", ("ACC-1",), "2026-01-02/order-1")
    assert tokens.read("orders", ("ACC-1",), token) == "2026-01-02/order-1"
    for name, filters in (("orders", ("ACC-2",)), ("executions", ("ACC-1",))):
        with pytest.raises(InvalidArgumentError) as caught:
            tokens.read(name, filters, token)
        assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
        assert caught.value.field_violations[0].field == "page_token"


@pytest.mark.parametrize(("asked", "given_size"), [(0, 100), (1, 1), (1_000, 1_000), (50_000, 1_000)])
def test_page_sizes_are_bounded(asked: int, given_size: int) -> None:
    assert page_size(asked) == given_size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        page_size(-1)
