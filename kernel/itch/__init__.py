"""Market data feeds without I/O: Nasdaq TotalView-ITCH 5.0, MoldUDP64 1.00, SoupBinTCP 3.00, and arbitration of two lines.

`sandbox.exchange` publishes with it, `svc_marketdata` receives. Nothing here reads a clock or a socket. Standard library only.

- `codec`: `encode(message) -> bytes`, `decode(data) -> ItchMessage | None` (None: well formed, of a type without a class here),
  `ITCH_SIZES`, `MESSAGE_SIZES` (type letter → bytes), `LAYOUTS`, `WIDE_LAYOUTS`. A quantity beyond 32 bits travels in the wide form of its
  message (a, e, x, u, p: A, E, X, U, P with 64 bits of shares), which decodes to the same class.
- `messages`: the ITCH 5.0 messages as NamedTuples: S R H Y L, A F E C X D U, P Q B.
- `venue`: what ITCH has no message for: `InstrumentDefinition` d (scale, tick, lot), `TradingDay` y (trade date, dated prior close),
  `LastTrade` l; `date_number`, `iso_date`.
- `moldudp64`: `encode_packet`, `encode_heartbeat`, `encode_end_of_session`, `encode_request`, `decode_packet -> Packet`,
  `decode_request -> Request`, `split` (messages into packets).
- `arbiter`: `Arbiter(lines, limits)`: `receive`, `tick`, `next_deadline`, `snapshot`, `snapshot_failed`, each but the deadline returning
  steps; `steps` has them and `ArbiterLimits`; `lines.LineWatch` says which line speaks.
- `soupbintcp`: `PacketReader`, `encode`, `encode_login`, `decode_login`, `encode_accepted`, …
- `glimpse`: the snapshot channel: `SnapshotReader` (client), `Snapshot`, `encode_end`, `decode_end`.
- `errors`: `MalformedError(subject, rule)`, the only exception that bytes or fields can cause (`glimpse.SnapshotError` beside it).

A receiver, with `now` from a monotonic clock:

    for step in arbiter.receive(line, datagram, now):
        match step:
            case SessionBegan(): books.clear()
            case Delivered(): books.apply(step.sequence, step.messages)
            case RequestNeeded(): socket.sendto(encode_request(step.request), request_server)
            case SnapshotNeeded(): fetch with SnapshotReader; arbiter.snapshot(snapshot.session, snapshot.next_sequence, now)
            case SnapshotAccepted(): books.replace(snapshot.messages)
            case GapDeclared(): books.doubt()
"""
