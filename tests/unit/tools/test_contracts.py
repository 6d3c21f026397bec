"""Each incompatible change of a contract is found by the gate, and each compatible one passes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools import contracts
from tools.contract_guard import violations
from tools.descriptors import ProtocError
from tools.image import Image

Compile = Callable[..., bytes]


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        pytest.param('post: "/v1/shops/{shop_id}/things"', 'post: "/v1/shops/{shop_id}/goods"', "HTTP binding `POST /v1/shops", id="path"),
        pytest.param('things" body: "*"', 'things"', "the HTTP binding", id="body"),
        pytest.param("rpc ListThings", "rpc ShowThings", "ListThings: the RPC is gone", id="rpc"),
        pytest.param("REFUSAL_REASON_SOLD_OUT = 1", "REFUSAL_REASON_CLOSED = 1", "SOLD_OUT: was 1, is gone", id="reason renamed"),
        pytest.param("REFUSAL_REASON_SOLD_OUT = 1", "REFUSAL_REASON_SOLD_OUT = 2", "SOLD_OUT: was 1, is 2", id="reason renumbered"),
        pytest.param("max_len: 8", "max_len: 7", "BuyThingRequest.shop_id: the validation rule was", id="tightened"),
        pytest.param(
            "keys: {string: {max_len: 3}}", "keys: {string: {max_len: 2}}", "BuyThingRequest.tags: the validation rule", id="map keys"
        ),
        pytest.param("{2})?$'", "{1})?$'", "trademesh.shop.v1.price: the validation rule was", id="shared rule"),
        pytest.param(
            "string prefix = 1;",
            "string prefix = 1 [(buf.validate.field).string.min_len = 1];",
            "Filter.prefix: the validation rule",
            id="new rule",
        ),
        pytest.param(
            "string prefix = 1;",
            "string prefix = 1;\n  // New.\n  string suffix = 2 [(buf.validate.field).string.min_len = 1];",
            "Filter.suffix: a new field that old payloads leave out must not be required (string.min_len)",
            id="new required field",
        ),
        pytest.param(
            "message Filter {",
            'message Filter {\n  option (buf.validate.message).cel = {id: "x", message: "x", expression: "this.prefix != \'\'"};',
            "trademesh.shop.v1.Filter: the validation rule was `none`",
            id="message rule",
        ),
    ],
)
def test_guard_finds_a_changed_meaning(compile_changed: Compile, old: str, new: str, finding: str) -> None:
    found = violations(Image(compile_changed()), Image(compile_changed((old, new))))

    assert any(finding in each for each in found), found


def test_guard_passes_additions(compile_changed: Compile) -> None:
    addition = compile_changed(
        ("REFUSAL_REASON_SOLD_OUT = 1;", "REFUSAL_REASON_SOLD_OUT = 1;\n  // New.\n  REFUSAL_REASON_CLOSED = 2;"),
        ("string prefix = 1;", "string prefix = 1;\n  // New.\n  optional string suffix = 2 [(buf.validate.field).string.min_len = 1];"),
        ('{get: "/v1/shops/{shop_id}/things"}', '{get: "/v1/shops/{shop_id}/things" additional_bindings {get: "/v1/things/{shop_id}"}}'),
    )

    assert violations(Image(compile_changed()), Image(addition)) == []


def test_guard_passes_an_unchanged_contract(compile_changed: Compile) -> None:
    assert violations(Image(compile_changed()), Image(compile_changed())) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        pytest.param("  // None left.\n", "", "REFUSAL_REASON_SOLD_OUT", id="comment"),
        pytest.param("REFUSAL_REASON_SOLD_OUT = 1", "SOLD_OUT = 1", "SOLD_OUT", id="enum prefix"),
        pytest.param("service ShopService", "service Shop", '"Shop"', id="service suffix"),
        pytest.param("string prefix = 1;", "string prefix = 1 [(buf.validate.field).int32.gte = 1];", "int32", id="rule of another type"),
    ],
)
def test_lint_finds(compile_changed: Compile, old: str, new: str, finding: str) -> None:
    findings = contracts.lint(compile_changed((old, new)))

    assert any(finding in each for each in findings), findings


def test_lint_is_silent_on_a_clean_contract_and_its_third_party_imports(compile_changed: Compile) -> None:
    assert contracts.lint(compile_changed()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("string prefix = 1;", "string start = 1;", id="name in JSON"),
        pytest.param("string prefix = 1;", "int32 prefix = 1;", id="type"),
        pytest.param("  // At most.\n  int32 page_size = 3 [(buf.validate.field).int32 = {gte: 0, lte: 50}];", "", id="deletion"),
    ],
)
def test_breaking_finds(compile_changed: Compile, tmp_path: Path, old: str, new: str) -> None:
    baseline = tmp_path / "baseline.binpb"
    baseline.write_bytes(compile_changed())

    assert contracts.breaking(compile_changed(), baseline) == []
    assert contracts.breaking(compile_changed((old, new)), baseline)


def test_protoc_fails_on_an_import_that_nothing_uses(compile_changed: Compile) -> None:
    with pytest.raises(ProtocError, match="unused"):
        compile_changed(("// Sells things.", 'import "google/protobuf/duration.proto";\n\n// Sells things.'))


def test_a_missing_baseline_is_a_finding(compile_changed: Compile, tmp_path: Path) -> None:
    assert contracts.incompatibilities(compile_changed(), tmp_path / "none.binpb") == ["none.binpb is missing; run `make baseline`"]


def test_the_baseline_moves_over_a_break_only_with_a_reason(
    compile_changed: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline.binpb"
    baseline.write_bytes(compile_changed())
    before = baseline.read_bytes()
    changed = compile_changed(("max_len: 8", "max_len: 7"))
    monkeypatch.setattr(contracts, "BASELINE", baseline)
    monkeypatch.setattr(contracts, "compile_image", lambda **_: changed)

    assert contracts.main(["baseline"]) == 1
    assert baseline.read_bytes() == before
    assert "shop_id: the validation rule was" in capsys.readouterr().out

    assert contracts.main(["baseline", "--break", "the shop never took more"]) == 0
    assert baseline.read_bytes() == changed
    assert contracts.main(["check"]) == 0
