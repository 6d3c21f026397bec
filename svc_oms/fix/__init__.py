"""FIX 4.4 to venues, as initiator: orders out, reports in, and what to do when nobody answers.

Pure: `requests` (orders to messages), `reports` (messages to `VenueReport`s and their kin), `routing` (send, wait, refuse, resend, ask).
With I/O: `connection` (TCP, one per venue session). Between them: `ports`, whose Protocols the service implements:

- `VenueSessionStore`: the session's rows, inside a transaction of the caller. `memory.MemoryVenueSessionStore` is the fake.
- `SessionHost`: `load`, `on_reports`, `messages_to_resend`; each one transaction that first asserts the session's lease.

How the router uses it:

    connection = VenueConnection(config, host, clock, lambda: leases.still_mine(keeper.current))
    task = asyncio.create_task(connection.run())          # returns once stopped, or once the lease is lost

    async def persist(number: Number) -> None:            # one transaction
        ...                                               # assert the lease; lock order heads and the kill switch, load the waiting
        verdicts = [judge_waiting(...), ...]              # SEND, WAIT, REFUSE, DROP
        change = number([new_order(...), request_message(...), ...])   # at most once; change.stored[i].sequence is its number
        ...                                               # RouteRequest / RefuseUnsent events, VenueSessionStore.save(change), commit

    sent = await connection.transmit(persist)             # False: not logged on, `persist` was not called

    state, questions = reconcile(state, connection.view(), orders, now)   # every second or so
    # questions.synchronise -> await connection.synchronise(); then mass_status_request, status_request by transmit

In `on_reports`: an `OrderReport` is a `RecordReport` command on its order (an `UNKNOWN_ORDER` only where `is_evidence(order,
batch.confirmed_sequence)`); a `MessageRefused` becomes one with `refusal_of` and the stored message of its sequence; anything that finds no
order is kept as an anomaly of the session. `next_in` is committed in the same transaction, so a report is never lost and never counted as
new twice.
"""
