"""Whatever the connection does, two sessions end synchronised, and every message that was stored arrives exactly once, in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.fix.link import Link

SIDE = st.integers(0, 1)
ACTION = st.one_of(
    st.tuples(st.just("connect")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("crash"), SIDE),
    st.tuples(st.just("send"), SIDE),
    st.tuples(st.just("send_and_crash"), SIDE),
    st.tuples(st.just("carry"), SIDE, st.integers(1, 600)),
    st.tuples(st.just("carry_all"), SIDE),
    st.tuples(st.just("damage"), SIDE, st.integers(1, 600), st.integers(0, 600)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 5.0, 12.0])),
)


def perform(link: Link, action: tuple[object, ...]) -> None:
    match action:
        case ("connect",):
            link.connect()
        case ("cut",):
            link.cut()
        case ("crash", int(index)):
            link.crash(index)
        case ("send", int(index)):
            link.send(index)
        case ("send_and_crash", int(index)):
            link.send(index, crash_before_write=True)
        case ("carry", int(index), int(size)):
            link.carry(index, size)
        case ("carry_all", int(index)):
            link.carry(index, 1 << 20)
        case ("damage", int(index), int(size), int(where)):
            link.carry(index, size, damage=where)
        case ("wait", float(seconds)):
            link.wait(seconds)
        case _:
            raise AssertionError(action)


def log_on(link: Link) -> None:
    link.connect()
    for index in (0, 1, 0):
        link.carry(index, 1 << 20)


def test_a_message_lost_with_the_process_arrives_after_the_restart() -> None:
    link = Link()
    log_on(link)
    link.send(0)
    link.carry(0, 1 << 20)
    link.send(0, crash_before_write=True)
    link.connect()
    link.send(0)
    assert not link.is_settled()
    link.settle()
    assert link.sides[1].store.received == link.sides[0].sent_ids == ["0-0", "0-1"]
    link.send(0)
    link.settle()
    assert link.sides[1].store.received == ["0-0", "0-1", "0-2"]


@given(st.lists(ACTION, max_size=40), st.sampled_from([(10_000, 1_000), (2, 1)]))
@settings(max_examples=600, deadline=None)
def test_sessions_end_synchronised_without_loss_or_repetition(actions: list[tuple[object, ...]], bounds: tuple[int, int]) -> None:
    link = Link(queue_max=bounds[0], resend_messages_max=bounds[1])
    log_on(link)
    for action in actions:
        perform(link, action)
    link.settle()
    assert link.is_settled()
    first, second = link.sides
    assert second.store.received == first.sent_ids
    assert first.store.received == second.sent_ids


@given(st.lists(st.tuples(SIDE, st.integers(1, 400), st.integers(0, 2000)), max_size=15), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_damage_on_a_busy_link_costs_no_message(damages: list[tuple[int, int, int]], burst: int) -> None:
    link = Link()
    log_on(link)
    for index, size, where in damages:
        for _ in range(burst):
            link.send(0)
            link.send(1)
        link.carry(index, size, damage=where)
        link.carry(1 - index, 1 << 20)
    link.settle()
    assert link.is_settled()
    first, second = link.sides
    assert second.store.received == first.sent_ids
    assert first.store.received == second.sent_ids
