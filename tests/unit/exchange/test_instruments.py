import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.exchange.instruments import Grid, InstrumentFileError, OffGridError, decimal_text, parse_instruments, read_instruments
from sandbox.exchange.main import DEFAULT_INSTRUMENTS
from tests.unit.exchange.venues import document, instruments


@pytest.mark.parametrize(
    ("step", "text", "count"), [("0.01", "232.56", 23_256), ("0.01", "232.560", 23_256), ("0.5", "7.5", 15), ("1", "007", 7)]
)
def test_texts_count_in_steps(step: str, text: str, count: int) -> None:
    assert Grid.of(step).count(text) == count


@pytest.mark.parametrize("text", ["", "-1", "-0", "+1", "1e3", "NaN", "1.005", "0.001", "1.0000000000000000001", "1" * 21, ".", "٣", "1,5"])
def test_texts_off_the_grid_are_refused(text: str) -> None:
    with pytest.raises(OffGridError):
        Grid.of("0.01").count(text)


@given(st.integers(0, 10**18), st.sampled_from(["1", "0.01", "0.5", "0.00000001", "25", "0.25"]))
def test_counts_and_texts_are_inverse(count: int, step: str) -> None:
    grid = Grid.of(step)
    assert grid.count(grid.text(count)) == count


@given(st.integers(-(10**20), 10**20), st.integers(0, 18))
def test_decimal_text_is_canonical(coefficient: int, scale: int) -> None:
    text = decimal_text(coefficient, scale)
    assert text != "-0"
    assert not ("." in text and text.endswith("0"))


def test_average_price_rounds_half_even() -> None:
    instrument = instruments()["AAPL"]
    assert instrument.average_price(0, 0) == "0"
    assert instrument.average_price(10_000 * 3, 3) == "100"
    assert instrument.average_price(20_000, 3) == "66.66666667"


def test_the_shipped_file_has_equities_and_crypto() -> None:
    listed = read_instruments(DEFAULT_INSTRUMENTS)
    assert {instrument.kind for instrument in listed.values()} == {"equity", "crypto"}
    assert listed["AAPL"].prices.step == "0.01"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tick": "0"}, "zero"),
        ({"tick": "-1"}, "unsigned"),
        ({"tick": 0.01}, "tick: a string"),
        ({"lot": ""}, "unsigned"),
        ({"symbol": "aapl"}, "symbol"),
        ({"kind": "bond"}, "kind"),
        ({"calendar": "mars"}, "calendar"),
        ({"prior_close": "100.001"}, "decimals"),
        ({"prior_close": "0"}, "positive"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str) -> None:
    wrong: Any = document()
    wrong["instruments"][0] |= change
    with pytest.raises(InstrumentFileError, match=message):
        parse_instruments(json.dumps(wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"open": "16:00"}, "opens at"),
        ({"close": "25:00"}, "close"),
        ({"days": []}, "days"),
        ({"days": ["someday"]}, "days"),
        ({"timezone": "Mars/Olympus"}, "calendar"),
        ({"holidays": ["2026-13-01"]}, "calendar"),
        ({"lunch": "12:00"}, "lunch"),
    ],
)
def test_a_wrong_calendar_is_named(change: dict[str, Any], message: str) -> None:
    wrong: Any = document()
    wrong["calendars"]["new-york"] |= change
    with pytest.raises(InstrumentFileError, match=message):
        parse_instruments(json.dumps(wrong))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"calendars": {}, "instruments": []}', '{"calendars": {}, "instruments": [1]}'])
def test_other_documents_are_refused(text: str) -> None:
    with pytest.raises(InstrumentFileError):
        parse_instruments(text)


def test_an_instrument_is_listed_once(tmp_path: Path) -> None:
    wrong: Any = document()
    wrong["instruments"].append(wrong["instruments"][0])
    path = tmp_path / "instruments.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(InstrumentFileError, match=r"instruments\.json.*twice"):
        read_instruments(path)
