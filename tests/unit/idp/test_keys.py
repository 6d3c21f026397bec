"""Signing keys: published before they sign, kept while a token of theirs may live, the same after a restart."""

import json
from pathlib import Path

import jwt
import pytest

from kernel.clock import ManualClock
from sandbox.idp.files import FileError
from sandbox.idp.keys import SKEW_SECONDS, KeySet, Schedule

SCHEDULE = Schedule(key_seconds=3_600, lead_seconds=600, token_seconds=300)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock) -> KeySet:
    return KeySet(tmp_path / "keys.json", SCHEDULE, clock)


def kids(keys: KeySet) -> list[str]:
    return [key.kid for key in keys.published()]


def test_the_first_key_signs_at_once(keys: KeySet) -> None:
    assert kids(keys) == [keys.signing().kid]


def test_a_new_key_is_published_for_the_lead_before_it_signs(keys: KeySet, clock: ManualClock) -> None:
    first = keys.signing().kid
    second = keys.rotate().kid
    assert keys.signing().kid == first
    assert kids(keys) == [first, second]
    clock.advance(SCHEDULE.lead_seconds - 1)
    assert keys.signing().kid == first
    clock.advance(1)
    assert keys.signing().kid == second


def test_an_old_key_stays_until_its_last_token_has_ended(keys: KeySet, clock: ManualClock) -> None:
    first = keys.signing().kid
    second = keys.rotate().kid
    clock.advance(SCHEDULE.lead_seconds + SCHEDULE.token_seconds + SKEW_SECONDS - 1)
    assert kids(keys) == [first, second]
    clock.advance(1)
    assert kids(keys) == [second]


def test_rotating_twice_in_the_lead_makes_one_key(keys: KeySet) -> None:
    assert keys.rotate().kid == keys.rotate().kid
    assert len(kids(keys)) == 2


def test_a_key_is_followed_on_time_without_being_asked(keys: KeySet, clock: ManualClock) -> None:
    first = keys.signing().kid
    clock.advance(SCHEDULE.key_seconds - SCHEDULE.lead_seconds)
    assert len(kids(keys)) == 2
    assert keys.signing().kid == first
    clock.advance(SCHEDULE.lead_seconds)
    assert keys.signing().kid != first


def test_after_a_long_sleep_the_new_key_still_waits_its_lead(keys: KeySet, clock: ManualClock) -> None:
    first = keys.signing().kid
    clock.advance(10 * SCHEDULE.key_seconds)
    assert keys.signing().kid == first
    clock.advance(SCHEDULE.lead_seconds)
    assert keys.signing().kid != first


def test_a_clock_that_steps_back_leaves_a_key_to_sign_with(keys: KeySet, clock: ManualClock) -> None:
    first = keys.signing().kid
    clock.step(-7_200)
    assert keys.signing().kid == first


def test_the_number_of_keys_is_bounded_under_constant_rotation(tmp_path: Path, clock: ManualClock) -> None:
    keys = KeySet(tmp_path / "keys.json", Schedule(key_seconds=10, lead_seconds=5, token_seconds=5), clock)
    for _ in range(200):
        keys.rotate()
        clock.advance(1)
    assert len(kids(keys)) <= 2 + (5 + SKEW_SECONDS) // 5 + 1


def test_keys_survive_a_restart_in_a_file_of_their_own(tmp_path: Path, keys: KeySet, clock: ManualClock) -> None:
    keys.rotate()
    path = tmp_path / "keys.json"
    assert path.stat().st_mode & 0o777 == 0o600
    again = KeySet(path, SCHEDULE, clock)
    assert kids(again) == kids(keys)
    assert again.signing().kid == keys.signing().kid


def test_a_kid_is_the_thumbprint_and_the_jwk_has_no_private_half(keys: KeySet) -> None:
    document = keys.published()[0].jwk()
    assert set(document) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    token = jwt.encode({"sub": "a"}, keys.signing().private, algorithm="ES256")
    assert jwt.decode(token, jwt.PyJWK(document).key, algorithms=["ES256"]) == {"sub": "a"}


def test_a_keys_file_that_others_may_read_is_refused(tmp_path: Path, keys: KeySet, clock: ManualClock) -> None:
    (tmp_path / "keys.json").chmod(0o640)
    with pytest.raises(FileError, match="chmod 600"):
        KeySet(tmp_path / "keys.json", SCHEDULE, clock)


@pytest.mark.parametrize("damage", ["", "{}", '{"keys": []}', '{"keys": [{"kid": "a", "signs_from": 1, "private_key": "b"}]}'])
def test_a_damaged_keys_file_is_refused(tmp_path: Path, keys: KeySet, clock: ManualClock, damage: str) -> None:
    (tmp_path / "keys.json").write_text(damage)
    with pytest.raises(FileError, match="damaged"):
        KeySet(tmp_path / "keys.json", SCHEDULE, clock)


def test_a_kid_that_is_not_its_keys_is_refused(tmp_path: Path, keys: KeySet, clock: ManualClock) -> None:
    path = tmp_path / "keys.json"
    document = json.loads(path.read_text())
    document["keys"][0]["kid"] = "another"
    path.write_text(json.dumps(document))
    with pytest.raises(FileError, match="thumbprint"):
        KeySet(path, SCHEDULE, clock)


@pytest.mark.parametrize(("key_seconds", "lead_seconds", "token_seconds"), [(3_600, 299, 300), (1_000, 600, 300), (3_600, 600, 4)])
def test_a_schedule_that_would_strand_a_token_is_refused(key_seconds: int, lead_seconds: int, token_seconds: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Schedule(key_seconds, lead_seconds, token_seconds)
