"""Two lines that lose, repeat and reorder: what the arbiter delivers is what was sent, each message once, or declared lost."""

import random
from heapq import heappop, heappush

from hypothesis import given
from hypothesis import strategies as st

from kernel.itch.arbiter import Arbiter
from kernel.itch.moldudp64 import decode_request, encode_end_of_session, encode_packet, encode_request
from kernel.itch.steps import (
    ArbiterLimits,
    ArbiterStep,
    Delivered,
    GapDeclared,
    RequestNeeded,
    SessionBegan,
    SessionEnded,
    SnapshotAccepted,
    SnapshotNeeded,
)

SESSION = "2611220001"
ANSWER_MESSAGES_MAX = 7
TIME_MAX = 60.0


class World:
    """The network and the servers behind an arbiter, on a made-up clock. What the stream was is put together from the steps."""

    def __init__(self, seed: int, loss: float, *, requests_work: bool, snapshots_work: bool, request_messages_max: int = 50) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.requests_work, self.snapshots_work = requests_work, snapshots_work
        self.sent: list[bytes] = []
        self.seen: dict[int, bytes] = {}
        self.skipped: set[int] = set()
        self.has_ended = False
        self.queue: list[tuple[float, int, str, bytes]] = []
        limits = ArbiterLimits(hold_packets_max=8, request_messages_max=request_messages_max, recovery_packets_max=40)
        self.arbiter = Arbiter(("A", "B"), limits)
        self.now = 0.0
        self.next_wanted = 1

    def send(self, sequence: int, packet: bytes, at: float) -> None:
        for line in ("A", "B"):
            for _ in range(self.random.choice((1, 1, 1, 2))):
                if self.random.random() >= self.loss:
                    self.post(line, packet, at + self.random.choice((0.0, 0.0001, 0.004)))

    def post(self, line: str, packet: bytes, at: float) -> None:
        heappush(self.queue, (at, self.random.getrandbits(60), line, packet))

    def run(self) -> None:
        while self.now < TIME_MAX and not self.has_ended:
            due = self.arbiter.next_deadline()
            if self.queue and (due is None or self.queue[0][0] <= due):
                self.now, _, line, packet = heappop(self.queue)
                self.note(self.arbiter.receive(line, packet, self.now))
            elif due is not None:
                self.now = max(due, self.now)
                self.note(self.arbiter.tick(self.now))
            else:
                break

    def note(self, steps: list[ArbiterStep]) -> None:
        for step in steps:
            match step:
                case Delivered(_, sequence, messages):
                    assert sequence == self.next_wanted
                    self.seen |= {sequence + offset: message for offset, message in enumerate(messages)}
                    self.next_wanted += len(messages)
                case GapDeclared(_, first, last) | SnapshotAccepted(_, _, first, last):
                    assert first == self.next_wanted
                    self.skipped |= set(range(first, last + 1))
                    self.next_wanted = last + 1
                case RequestNeeded():
                    self.answer(step)
                case SnapshotNeeded():
                    assert step.next_sequence == self.next_wanted
                    follow = (
                        self.arbiter.snapshot(SESSION, self.random.randint(step.next_sequence, len(self.sent) + 1), self.now)
                        if self.snapshots_work
                        else self.arbiter.snapshot_failed(self.now)
                    )
                    self.note(follow)
                case SessionEnded():
                    self.has_ended = True
                case _:
                    pass

    def answer(self, step: RequestNeeded) -> None:
        if not self.requests_work or self.random.random() < self.loss / 4:
            return
        _, first, count = decode_request(encode_request(step.request))
        messages = self.sent[first - 1 : first - 1 + min(count, ANSWER_MESSAGES_MAX)]
        self.post("answers", encode_packet(SESSION, first, messages), self.now + 0.001)


def played(world: World, sizes: list[int]) -> World:
    at = 0.0
    for number, size in enumerate(sizes):
        sequence = len(world.sent) + 1
        messages = [b"%d/%d" % (number, part) for part in range(size)]
        world.sent += messages
        world.send(sequence, encode_packet(SESSION, sequence, messages), at)
        at += 0.0005
    # The venue says it many times; a network that loses all of them says nothing for ever.
    for repeat in range(20):
        world.post("A", encode_end_of_session(SESSION, len(world.sent) + 1), at + 0.5 * (repeat + 1))
    world.run()
    return world


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


@given(SIZES, st.integers(0, 2**32), st.sampled_from((0.0, 0.05, 0.3)))
def test_with_a_request_server_what_comes_is_what_was_sent(sizes: list[int], seed: int, loss: float) -> None:
    world = played(World(seed, loss, requests_work=True, snapshots_work=False, request_messages_max=10_000), sizes)

    assert world.has_ended
    assert [world.seen[number] for number in sorted(world.seen)] == world.sent


@given(SIZES, st.integers(0, 2**32), st.sampled_from((0.05, 0.3)))
def test_what_a_snapshot_bridges_is_the_only_thing_missing(sizes: list[int], seed: int, loss: float) -> None:
    world = played(World(seed, loss, requests_work=True, snapshots_work=True), sizes)

    assert world.has_ended
    assert world.seen == {number: world.sent[number - 1] for number in range(1, len(world.sent) + 1) if number not in world.skipped}


@given(SIZES, st.integers(0, 2**32), st.booleans())
def test_what_cannot_be_recovered_is_declared_and_nothing_else_is(sizes: list[int], seed: int, snapshots_work: bool) -> None:
    world = played(World(seed, 0.4, requests_work=False, snapshots_work=snapshots_work), sizes)

    assert world.has_ended
    assert set(world.seen) | world.skipped == set(range(1, len(world.sent) + 1))
    assert not set(world.seen) & world.skipped
    assert all(world.sent[number - 1] == message for number, message in world.seen.items())


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_no_datagram_makes_it_raise(datagrams: list[bytes]) -> None:
    arbiter = Arbiter()

    for number, datagram in enumerate(datagrams):
        arbiter.receive("A", datagram, float(number))


def test_a_session_begins_once() -> None:
    world = played(World(1, 0.0, requests_work=True, snapshots_work=True), [1, 2, 3])
    steps = world.arbiter.receive("B", encode_packet(SESSION, 1, [b"0/0"]), world.now)

    assert not any(isinstance(step, SessionBegan | Delivered) for step in steps)
