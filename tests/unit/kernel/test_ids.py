from __future__ import annotations

import uuid

import pytest

from kernel.clock import ManualClock
from kernel.errors import InvalidArgumentError
from kernel.ids import ORDER_NAMESPACE, DeterministicIdSource, Uuid7Source, check_uuid, order_id


def test_order_id_is_uuid5_of_account_and_key() -> None:
    assert order_id("ACC-1", "my-order") == str(uuid.uuid5(ORDER_NAMESPACE, "ACC-1\x00my-order"))


def test_order_id_never_changes() -> None:
    assert order_id("ACC-1", "my-order") == "35cde6af-e09a-551e-a5e5-7ffae6b6aa92"


def test_order_id_keeps_the_border_between_account_and_key() -> None:
    assert order_id("A", "BC") != order_id("AB", "C")
    for account, key in [("", "x"), ("x", ""), ("A\x00", "B"), ("A", "\x00B")]:
        with pytest.raises(ValueError, match="NUL"):
            order_id(account, key)


def test_uuid7_carries_time_version_and_variant() -> None:
    clock = ManualClock()
    parsed = uuid.UUID(Uuid7Source(clock).new_id())
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == clock.now_ns() // 1_000_000


def test_uuid7_grows_while_the_clock_stands_still_or_steps_back() -> None:
    clock = ManualClock()
    source = Uuid7Source(clock)
    ids = [source.new_id() for _ in range(1_000)]
    clock.step(-3600)
    ids += [source.new_id() for _ in range(1_000)]
    clock.step(7200)
    ids.append(source.new_id())
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_uuid7_runs_into_the_next_millisecond_when_one_is_full() -> None:
    source = Uuid7Source(ManualClock(), entropy=lambda size: b"\xff" * size)
    source._random = (1 << 74) - 2  # as after a very long burst
    source._timestamp_ms = ManualClock().now_ns() // 1_000_000
    first, second = source.new_id(), source.new_id()
    assert first < second
    assert uuid.UUID(first).int >> 80 == ManualClock().now_ns() // 1_000_000 + 1


def test_deterministic_ids_depend_on_the_seed_alone() -> None:
    first, again, other = DeterministicIdSource(7), DeterministicIdSource(7), DeterministicIdSource(8)
    ids = [first.new_id() for _ in range(10)]
    assert ids == [again.new_id() for _ in range(10)] == sorted(ids)
    assert not set(ids) & {other.new_id() for _ in range(10)}
    assert all(uuid.UUID(text).version == 7 for text in ids)


@pytest.mark.parametrize("text", ["", "x", "018BCFE5-6800-7089-A5B1-F50000000001", "{018bcfe5-6800-7089-a5b1-f50000000001}", "0" * 36])
def test_other_spellings_of_uuids_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_uuid(text)
