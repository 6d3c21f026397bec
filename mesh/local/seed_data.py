"""What a fresh local mesh knows: two tenants' accounts, the venue's instruments, and limits for whoever has none of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sandbox.exchange
from sandbox.exchange.calendar import WEEKDAYS, Calendar
from sandbox.exchange.instruments import Instrument, read_instruments
from trademesh.risk.v1 import limit_pb2, reference_data_pb2, reference_data_service_pb2, risk_service_pb2

TENANT = "demo"
VENUE = "XSIM"
INSTRUMENTS_FILE = Path(sandbox.exchange.__file__).with_name("instruments.json")

_MINUTES_PER_DAY = 24 * 60
_COMMENT = "seed of a local mesh"


@dataclass(frozen=True)
class SeedAccount:
    """An account of the seed; its limits are the defaults."""

    account_id: str
    display_name: str
    currency: str = "USD"


ACCOUNTS = (
    SeedAccount("ACC-1", "Alpha Fund"),
    SeedAccount("ACC-2", "Beta Partners"),
    SeedAccount("ACC-3", "Gamma Capital"),
)

OTHER_TENANT = "other"
OTHER_ACCOUNTS = (SeedAccount("OTH-1", "Omega Trust"),)
"""Somebody else on the same mesh, so that what tenants must not see of each other can be seen."""

_ACCOUNT, _TRADER, _INSTRUMENT = limit_pb2.LIMIT_SCOPE_ACCOUNT, limit_pb2.LIMIT_SCOPE_TRADER, limit_pb2.LIMIT_SCOPE_INSTRUMENT

DEFAULT_LIMITS = (
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MAX_NOTIONAL, "1000000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_OPEN_EXPOSURE, "5000000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_GROSS_EXPOSURE, "10000000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "1000"),
    (_ACCOUNT, limit_pb2.LIMIT_TYPE_DUPLICATE_WINDOW, "0.5"),
    (_TRADER, limit_pb2.LIMIT_TYPE_MESSAGE_RATE, "2000"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_MAX_QUANTITY, "100000"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR, "0.05"),
    (_INSTRUMENT, limit_pb2.LIMIT_TYPE_PRICE_COLLAR_PRIOR_CLOSE, "0.1"),
)
"""(scope, type, value) under the id `*`: they bind everybody who has no limit of their own. Money in USD."""


def account_requests(accounts: Iterable[SeedAccount], new_key: Iterable[str]) -> list[reference_data_service_pb2.CreateAccountRequest]:
    """Return the requests that create these accounts."""
    return [
        reference_data_service_pb2.CreateAccountRequest(
            account_id=account.account_id, display_name=account.display_name, currency=account.currency, request_id=key
        )
        for account, key in zip(accounts, new_key, strict=False)
    ]


def instrument_ids() -> list[str]:
    """Return what the sandbox exchange trades."""
    return list(read_instruments(INSTRUMENTS_FILE))


def instrument_requests(new_key: Iterable[str]) -> list[reference_data_service_pb2.CreateInstrumentRequest]:
    """Return the requests that create what the sandbox exchange trades."""
    instruments = read_instruments(INSTRUMENTS_FILE).values()
    return [_instrument_request(instrument, key) for instrument, key in zip(instruments, new_key, strict=False)]


def limit_requests(new_key: Iterable[str]) -> list[risk_service_pb2.UpdateLimitRequest]:
    """Return the requests that set the default limits."""
    return [
        risk_service_pb2.UpdateLimitRequest(scope=scope, scope_id="*", type=kind, value=value, request_id=key, comment=_COMMENT)
        for (scope, kind, value), key in zip(DEFAULT_LIMITS, new_key, strict=False)
    ]


def _instrument_request(instrument: Instrument, key: str) -> reference_data_service_pb2.CreateInstrumentRequest:
    crypto = instrument.kind == "crypto"
    return reference_data_service_pb2.CreateInstrumentRequest(
        instrument_id=instrument.symbol,
        display_name=instrument.name,
        asset_class=reference_data_pb2.ASSET_CLASS_CRYPTO if crypto else reference_data_pb2.ASSET_CLASS_EQUITY,
        currency=instrument.currency,
        tick_size=instrument.prices.step,
        lot_size=instrument.quantities.step,
        venue=VENUE,
        calendar=_calendar(instrument.calendar),
        request_id=key,
    )


def _calendar(calendar: Calendar) -> reference_data_pb2.TradingCalendar:
    every_day = len(calendar.weekdays) == len(WEEKDAYS) and not calendar.holidays
    if every_day and calendar.open_minute == 0 and calendar.close_minute == _MINUTES_PER_DAY:
        return reference_data_pb2.TradingCalendar(time_zone=calendar.zone.key)
    return reference_data_pb2.TradingCalendar(
        time_zone=calendar.zone.key,
        open_time=_time_of_day(calendar.open_minute),
        close_time=_time_of_day(calendar.close_minute),
        holidays=sorted(day.isoformat() for day in calendar.holidays),
    )


def _time_of_day(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
