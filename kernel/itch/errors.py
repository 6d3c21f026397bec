"""What a peer's bytes or an encoder's fields can be wrong about."""


class MalformedError(ValueError):
    """Bytes that are no message of the protocol, or a field that its place on the wire cannot hold.

    Whoever reads from the network catches it, counts it and goes on with the next packet or closes the connection.

    Attributes:
        subject: what is wrong, e.g. `itch A.shares` or `moldudp64 block 3`.
        rule: the rule that it breaks.
    """

    def __init__(self, subject: str, rule: str) -> None:
        super().__init__(f"{subject}: {rule}")
        self.subject = subject
        self.rule = rule
