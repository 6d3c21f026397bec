"""The event log of a service: the contract is `kernel.ports.EventStore`; `memory` and `postgres` keep it."""
