"""The operator's line protocol: one JSON object per line in, one per line out (README.md lists the operations).

    {"op": "fault.add", "action": "reject", "instrument": "AAPL", "count": 1}
    {"ok": true, "rule_id": 1}

A script file has the same lines, blank ones and those that start with `#` left out.
"""

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.exchange.engine.vocabulary import CancelReason
from sandbox.exchange.exchange import Exchange
from sandbox.exchange.faults import FaultError
from sandbox.exchange.instruments import OffGridError
from sandbox.exchange.market_data.channels import MarketDataServer
from sandbox.exchange.market_data.line_faults import LineFaultBook
from sandbox.exchange.pacer import FlowPacer

LINE_BYTES_MAX = 16 * 1024
STEP_TICKS_MAX = 10_000

_log = logging.getLogger(__name__)


class ControlError(ValueError):
    """The operation is unknown or malformed, or does not apply; the message goes back to the operator."""


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ControlError(f"{name}: a text is required")
    return value


def _number(request: dict[str, Any], name: str, maximum: int) -> int:
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise ControlError(f"{name}: a whole number from 0 to {maximum} is required")
    return value


class Control:
    """Carries out the operator's lines. The caller commits the exchange afterwards."""

    def __init__(self, exchange: Exchange, pacer: FlowPacer, market_data: MarketDataServer | None = None) -> None:
        self._exchange = exchange
        self._market_data = market_data
        self._pacer = pacer
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "fault.add": self._fault_add,
            "fault.remove": self._fault_remove,
            "fault.clear": self._fault_clear,
            "fault.list": self._fault_list,
            "line.fault.add": self._line_fault_add,
            "line.fault.remove": self._line_fault_remove,
            "line.fault.clear": self._line_fault_clear,
            "line.fault.list": self._line_fault_list,
            "flow.pause": self._flow_pause,
            "flow.resume": self._flow_resume,
            "flow.rate": self._flow_rate,
            "flow.step": self._flow_step,
            "trade.bust": self._trade_bust,
            "trade.correct": self._trade_correct,
            "member.list": self._member_list,
            "member.disconnect": self._member_disconnect,
            "member.cancel_all": self._member_cancel_all,
            "status": self._status,
        }

    def handle(self, line: bytes | str) -> str:
        """Carry out one line and return the answer's line; never raises for bad input."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ControlError("expected a JSON object")
            operation = self._operations.get(str(request.pop("op", "")))
            if operation is None:
                raise ControlError(f"op: expected one of {', '.join(self._operations)}")
            answer = {"ok": True, **operation(request)}
            _log.info("control", extra={"fields": {"operation": str(line)[:200]}})
        except (ControlError, FaultError, OffGridError, ValueError, RecursionError) as error:
            answer = {"ok": False, "error": str(error)[:500]}
        return json.dumps(answer, separators=(",", ":"))

    def run_script(self, lines: Iterable[str]) -> None:
        """Carry out a script.

        Raises:
            ControlError: a line failed; the message has its number.
        """
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            answer = json.loads(self.handle(line))
            if not answer["ok"]:
                raise ControlError(f"line {number}: {answer['error']}")

    def _fault_add(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"rule_id": self._exchange.faults.add(request).rule_id}

    def _fault_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"removed": self._exchange.faults.remove(_number(request, "rule_id", 2**53))}

    def _fault_clear(self, _: dict[str, Any]) -> dict[str, Any]:
        self._exchange.faults.clear()
        return {}

    def _fault_list(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"rules": [rule.describe() for rule in self._exchange.faults.rules()]}

    @property
    def _line_faults(self) -> LineFaultBook:
        if self._market_data is None:
            raise ControlError("no market data is published here: neither ITCH_A nor ITCH_B is configured")
        return self._market_data.publisher.faults

    def _line_fault_add(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"rule_id": self._line_faults.add(request).rule_id}

    def _line_fault_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"removed": self._line_faults.remove(_number(request, "rule_id", 2**53))}

    def _line_fault_clear(self, _: dict[str, Any]) -> dict[str, Any]:
        self._line_faults.clear()
        return {}

    def _line_fault_list(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"rules": [rule.describe() for rule in self._line_faults.rules()]}

    def _flow_pause(self, _: dict[str, Any]) -> dict[str, Any]:
        self._pacer.paused = True
        return {}

    def _flow_resume(self, _: dict[str, Any]) -> dict[str, Any]:
        self._pacer.resume(self._exchange.clock.monotonic())
        return {}

    def _flow_rate(self, request: dict[str, Any]) -> dict[str, Any]:
        rate = request.get("ticks_per_second")
        if not isinstance(rate, int | float) or isinstance(rate, bool):
            raise ControlError("ticks_per_second: a number is required")
        self._pacer.set_rate(rate, self._exchange.clock.monotonic())
        return {}

    def _flow_step(self, request: dict[str, Any]) -> dict[str, Any]:
        self._pacer.step(_number(request, "ticks", STEP_TICKS_MAX) if "ticks" in request else 1)
        return {"tick": self._exchange.venue.flow_tick}

    def _match_id(self, request: dict[str, Any]) -> int:
        exec_id = _text(request, "exec_id")
        number = self._exchange.reports.exec_number(exec_id)
        trades = self._exchange.state.trades
        # The seller's execution is the match's number plus one.
        for match_id in () if number is None else (number, number - 1):
            if match_id in trades:
                return match_id
        raise ControlError(f"exec_id: no trade {exec_id[:64]!r} is known here")

    def _trade_bust(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"changed": self._exchange.venue.correct_trade(self._match_id(request), None, 0)}

    def _trade_correct(self, request: dict[str, Any]) -> dict[str, Any]:
        match_id = self._match_id(request)
        instrument = self._exchange.state.markets[self._exchange.state.trades[match_id].instrument].instrument
        price = instrument.prices.count(_text(request, "price")) if "price" in request else None
        quantity = instrument.quantities.count(_text(request, "quantity")) if "quantity" in request else None
        return {"changed": self._exchange.venue.correct_trade(match_id, price, quantity)}

    def _member_list(self, _: dict[str, Any]) -> dict[str, Any]:
        members = [
            {
                "comp_id": member.comp_id,
                "connected": member.is_connected,
                "next_in": member.sequences.next_in,
                "next_out": member.sequences.next_out,
                "open_orders": len(self._exchange.state.open_orders.get(member.comp_id, {})),
            }
            for member in self._exchange.desk.members.values()
        ]
        return {"members": members}

    def _member_disconnect(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"disconnected": self._exchange.desk.drop(_text(request, "comp_id"), "dropped by the operator")}

    def _member_cancel_all(self, request: dict[str, Any]) -> dict[str, Any]:
        comp_id = _text(request, "comp_id")
        if comp_id not in self._exchange.desk.members:
            raise ControlError(f"comp_id: no member {comp_id[:32]!r}")
        return {"canceled": self._exchange.venue.cancel_all(comp_id, CancelReason.OPERATOR)}

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        state = self._exchange.state
        return {
            "sequence": state.sequence,
            "open_orders": sum(len(owned) for owned in state.open_orders.values()),
            "flow": {"tick": self._exchange.venue.flow_tick, "ticks_per_second": self._pacer.rate, "paused": self._pacer.paused},
            "members_connected": sum(member.is_connected for member in self._exchange.desk.members.values()),
            "market_data": None if self._market_data is None else self._market_data.status(),
        }
