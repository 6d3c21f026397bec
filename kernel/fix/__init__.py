"""FIX 4.4 without I/O: tag=value codec, field dictionary and session state machine. Standard library only.

`svc_oms.fix` drives it as initiator, `sandbox.exchange` as acceptor. Nothing here reads a clock, a socket or a store: bytes
and times come in, messages and bytes go out. See `codec` for framing, `message` for fields, `session` for the state machine.
"""
