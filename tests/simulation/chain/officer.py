"""The risk officer: sets the market up, and later changes limits and kill switches while orders flow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kernel.ids import DeterministicIdSource
from tests.simulation.chain.clients import Caller
from tests.simulation.chain.venue import INSTRUMENTS, VENUE
from trademesh.risk.v1 import limit_pb2, reference_data_pb2, reference_data_service_pb2, risk_service_pb2

_KINDS = {"equity": reference_data_pb2.ASSET_CLASS_EQUITY, "crypto": reference_data_pb2.ASSET_CLASS_CRYPTO}
_ACCOUNT, _INSTRUMENT = limit_pb2.LIMIT_SCOPE_ACCOUNT, limit_pb2.LIMIT_SCOPE_INSTRUMENT
_DEFAULTS = (
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MAX_NOTIONAL, "20000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, "40000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE, "60000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "50"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_DUPLICATE_WINDOW, "0.5"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_MAX_QUANTITY, "100"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR, "0.05"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR_PRIOR_CLOSE, "0.1"),
)
_FIRM, _OF_ACCOUNT, _OF_TRADER, _OF_INSTRUMENT = 1, 2, 3, 4


class Officer:
    """Has every right in the firm's tenant."""

    def __init__(self, caller: Caller, risk: Any, reference: Any, accounts: Sequence[str], traders: Sequence[str]) -> None:
        self._caller = caller
        self._dice = caller.dice
        self._risk = risk
        self._reference = reference
        self._accounts = accounts
        self._traders = traders
        self._ids = DeterministicIdSource(4_242)
        self._engaged: set[tuple[int, str]] = set()

    async def set_up(self) -> None:
        """Create accounts, instruments and default limits."""
        for account_id in self._accounts:
            account = reference_data_service_pb2.CreateAccountRequest(account_id=account_id, display_name="an account", currency="USD")
            await self._ask(self._reference.CreateAccount, "CreateAccount", account)
        for instrument_id, fields in INSTRUMENTS.items():
            instrument = reference_data_service_pb2.CreateInstrumentRequest(
                instrument_id=instrument_id,
                display_name="an instrument",
                asset_class=_KINDS[fields["kind"]],
                currency="USD",
                tick_size=fields["tick"],
                lot_size=fields["lot"],
                venue=VENUE,
                calendar=reference_data_pb2.TradingCalendar(time_zone="UTC"),
            )
            await self._ask(self._reference.CreateInstrument, "CreateInstrument", instrument)
        for scope, limit_type, value in _DEFAULTS:
            await self._limit(scope, "*", limit_type, value)

    async def _ask(self, rpc: Any, method: str, request: Any) -> Any:
        request.request_id = self._ids.new_id()
        return await self._caller.until_known(rpc, method, ("", request.request_id), request)

    async def _limit(self, scope: Any, scope_id: str, limit_type: Any, value: str) -> None:
        request = risk_service_pb2.UpdateLimitRequest(scope=scope, scope_id=scope_id, type=limit_type, value=value, comment="a change")
        await self._ask(self._risk.UpdateLimit, "UpdateLimit", request)

    async def meddle(self, until: float) -> None:
        """Change limits and switches now and then, until a moment of the loop's time."""
        loop = self._caller.host.loop
        while loop.time() < until:
            await asyncio.sleep(self._dice.expovariate(1.0) * 2.5)
            kind = self._dice.random()
            if kind < 0.5:
                await self._change_limit()
            elif kind < 0.75 or not self._engaged:
                await self._engage()
            else:
                await self._release(self._dice.choice(sorted(self._engaged)))

    async def _change_limit(self) -> None:
        dice = self._dice
        limit_type = dice.choice((limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE))
        scope_id = dice.choice(("*", *self._accounts))
        await self._limit(_ACCOUNT, scope_id, limit_type, str(dice.choice((0, 3_000, 8_000, 20_000, 40_000, 60_000))))

    async def _engage(self) -> None:
        dice = self._dice
        scope = dice.choice((_FIRM, _OF_ACCOUNT, _OF_ACCOUNT, _OF_TRADER, _OF_INSTRUMENT, _OF_INSTRUMENT))
        ids = {_FIRM: ["*"], _OF_ACCOUNT: self._accounts, _OF_TRADER: self._traders, _OF_INSTRUMENT: sorted(INSTRUMENTS)}
        scope_id = dice.choice(ids[scope])
        request = risk_service_pb2.ActivateKillSwitchRequest(
            scope=scope,  # type: ignore[arg-type]
            scope_id=scope_id,
            cancel_open_orders=dice.random() < 0.5,
            comment="stop",
        )
        self._engaged.add((scope, scope_id))
        await self._ask(self._risk.ActivateKillSwitch, "ActivateKillSwitch", request)

    async def _release(self, switch: tuple[int, str]) -> None:
        scope, scope_id = switch
        request = risk_service_pb2.ReleaseKillSwitchRequest(
            scope=scope,  # type: ignore[arg-type]
            scope_id=scope_id,
            comment="go on",
        )
        self._engaged.discard(switch)
        await self._ask(self._risk.ReleaseKillSwitch, "ReleaseKillSwitch", request)

    async def release_all(self) -> None:
        """Release every switch."""
        for switch in sorted(self._engaged):
            await self._release(switch)
