"""What comes in: client authentication in two ways but never both, and the cap on tries."""

import base64

import pytest

from kernel.clock import ManualClock
from sandbox.idp.rates import NAMES_MAX, RateCap
from sandbox.idp.requests import OAuthError, read_credentials


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_basic_credentials_are_form_decoded() -> None:
    credentials = read_credentials(basic("a%2Fb:p%3Aq+r"), {})
    assert (credentials.client_id, credentials.secret, credentials.method) == ("a/b", "p:q r", "client_secret_basic")
    assert "p:q" not in repr(credentials)


def test_credentials_may_come_in_the_body() -> None:
    credentials = read_credentials(None, {"client_id": "a", "client_secret": "b"})
    assert (credentials.client_id, credentials.secret, credentials.method) == ("a", "b", "client_secret_post")


@pytest.mark.parametrize("form", [{"client_secret": "b"}, {"client_id": "a", "client_secret": "b"}, {"client_id": "other"}])
def test_two_ways_at_once_are_refused(form: dict[str, str]) -> None:
    with pytest.raises(OAuthError) as caught:
        read_credentials(basic("a:b"), form)
    assert caught.value.error == "invalid_request"


@pytest.mark.parametrize("authorization", [None, "", "Bearer abc", "Basic", "Basic !", "Basic YQ", basic("no colon"), "Basic /w=="])
def test_anything_else_is_no_client(authorization: str | None) -> None:
    with pytest.raises(OAuthError) as caught:
        read_credentials(authorization, {"client_id": "a"})
    assert (caught.value.error, caught.value.status) == ("invalid_client", 401)
    assert caught.value.headers["WWW-Authenticate"].startswith("Basic ")


def test_the_cap_lets_through_what_it_says_and_tells_when_to_come_back() -> None:
    clock = ManualClock()
    cap = RateCap(6, clock)
    assert [cap.wait_seconds("a") for _ in range(7)] == [0] * 6 + [10]
    assert cap.wait_seconds("b") == 0
    clock.advance(10)
    assert [cap.wait_seconds("a") for _ in range(2)] == [0, 10]
    clock.advance(3_600)
    assert [cap.wait_seconds("a") for _ in range(7)] == [0] * 6 + [10]


def test_the_cap_forgets_who_came_longest_ago() -> None:
    cap = RateCap(1, ManualClock())
    assert cap.wait_seconds("a") == 0
    for number in range(NAMES_MAX):
        cap.wait_seconds(str(number))
    assert cap.wait_seconds("a") == 0
