"""QuickFIX in a process of its own: `python peer.py SETTINGS_FILE`; JSON lines of commands in, JSON lines of events out.

A process, because its C++ threads must not outlive a test, and because tests stop and kill it. Everything it reports is `{"event": …}`:
`ready`, `logon`, `logout`, `numbers` with `next_in` and `next_out`, and `in` or `out` with the `fields` of a message as read or written.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import quickfix as fix

_output = threading.Lock()


def tell(event: str, **details: Any) -> None:
    with _output:
        sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
        sys.stdout.flush()


def message_of(msg_type: str, fields: list[tuple[int, str]]) -> Any:
    message = fix.Message()
    message.getHeader().setField(35, msg_type)
    for tag, value in fields:
        message.setField(tag, value)
    return message


def fields_of(message: Any) -> list[list[str]]:
    return [field.split("=", 1) for field in message.toString().split("\x01") if field]


class Application(fix.Application):  # type: ignore[misc]
    """Reports what passes; as acceptor, acknowledges and fills every new order; as initiator, logs on with a name and a password."""

    def __init__(self, credentials: list[str]) -> None:
        super().__init__()
        self.credentials = credentials
        self.executions = 0
        self.session_id: Any = None

    def onCreate(self, session_id: Any) -> None:
        self.session_id = fix.SessionID(
            session_id.getBeginString().getString(), session_id.getSenderCompID().getString(), session_id.getTargetCompID().getString()
        )

    def onLogon(self, session_id: Any) -> None:
        tell("logon")

    def onLogout(self, session_id: Any) -> None:
        tell("logout")

    def toAdmin(self, message: Any, session_id: Any) -> None:
        if self.credentials and message.getHeader().getField(35) == "A":
            message.setField(553, self.credentials[0])
            message.setField(554, self.credentials[1])
        tell("out", fields=fields_of(message))

    def fromAdmin(self, message: Any, session_id: Any) -> None:
        tell("in", fields=fields_of(message))

    def toApp(self, message: Any, session_id: Any) -> None:
        tell("out", fields=fields_of(message))

    def fromApp(self, message: Any, session_id: Any) -> None:
        tell("in", fields=fields_of(message))
        if message.getHeader().getField(35) == "D":
            quantity = message.getField(38)
            self.report(message, "0", "0", "0")
            self.report(message, "F", "2", quantity)

    def report(self, order: Any, exec_type: str, status: str, quantity: str) -> None:
        self.executions += 1
        fields = [(6, "10"), (14, quantity), (17, f"QF-{self.executions}"), (37, f"V-{order.getField(11)}"), (39, status), (150, exec_type)]
        fields += [(tag, order.getField(tag)) for tag in (11, 38, 54, 55, 60)] + [(151, "0")]
        if exec_type == "F":
            fields += [(31, "10"), (32, quantity)]
        fix.Session.sendToTarget(message_of("8", fields), self.session_id)


def obey(command: dict[str, Any], application: Application) -> None:
    session = fix.Session.lookupSession(application.session_id)
    match command["do"]:
        case "send":
            fix.Session.sendToTarget(message_of(command["type"], command["fields"]), application.session_id)
        case "logout":
            session.logout(command["text"])
        case "logon":
            session.logon()
        case "set":
            session.setNextSenderMsgSeqNum(command["next_out"])
            session.setNextTargetMsgSeqNum(command["next_in"])
    tell("numbers", next_in=session.getExpectedTargetNum(), next_out=session.getExpectedSenderNum())


def main() -> None:
    path = Path(sys.argv[1])
    settings = fix.SessionSettings(str(path))
    application = Application(sys.argv[2:])
    engine = fix.SocketAcceptor if "ConnectionType=acceptor" in path.read_text(encoding="utf-8") else fix.SocketInitiator
    running = engine(application, fix.FileStoreFactory(settings), settings, fix.FileLogFactory(settings))
    tell("ready")
    if engine is fix.SocketAcceptor:
        running.start()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            running.start()
        elif command["do"] == "stop":
            break
        else:
            obey(command, application)
    running.stop()


if __name__ == "__main__":
    main()
