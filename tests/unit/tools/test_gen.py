"""What `make gen` writes is complete, stable and importable beside any other protobuf package."""

from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from tools import gen
from tools.descriptors import ROOT, ProtocError
from trademesh.oms.v1 import order_service_pb2
from trademesh.third_party import validate_pb2
from trademesh.type.v1 import order_terms_pb2


def test_writes_messages_grpc_code_and_stubs(proto_root: Path, tmp_path: Path) -> None:
    target = tmp_path / "gen"
    target.mkdir()

    gen.generate(target, proto_root=proto_root)

    home = target / "trademesh" / "shop" / "v1"
    assert sorted(path.name for path in home.iterdir()) == [
        "__init__.py",
        "rule_pb2.py",
        "rule_pb2.pyi",
        "shop_pb2.py",
        "shop_pb2.pyi",
        "shop_pb2_grpc.py",
        "shop_pb2_grpc.pyi",
    ]
    for path in home.iterdir():
        assert "buf.validate import" not in path.read_text()
        assert "import buf." not in path.read_text()
    assert "grpc import aio" in (home / "shop_pb2_grpc.pyi").read_text()


def test_is_stable(proto_root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for target in (first, second):
        target.mkdir()
        gen.generate(target, proto_root=proto_root)

    assert gen.drift(first, second) == []


def test_drift_names_what_differs_is_missing_or_is_left_over(tmp_path: Path) -> None:
    for side, files in (
        ("expected", {"same": "1", "differs": "1", "missing": "1"}),
        ("actual", {"same": "1", "differs": "2", "over": "1"}),
    ):
        (tmp_path / side / "__pycache__").mkdir(parents=True)
        (tmp_path / side / "__pycache__" / "bytecode.pyc").write_text(side)
        for name, text in files.items():
            (tmp_path / side / name).write_text(text)

    assert gen.drift(tmp_path / "expected", tmp_path / "actual") == ["differs", "missing", "over"]


def test_a_broken_proto_is_refused_with_its_line(proto_root: Path, tmp_path: Path) -> None:
    (proto_root / "trademesh" / "shop" / "v1" / "shop.proto").write_text('syntax = "proto3";\nmessage {')

    with pytest.raises(ProtocError, match=r"shop\.proto:2:"):
        gen.generate(tmp_path / "gen", proto_root=proto_root)


def test_gen_owns_one_name() -> None:
    assert sorted(path.name for path in (ROOT / "gen").iterdir() if path.name != "__pycache__") == ["descriptor", "openapi", "trademesh"]


def test_the_default_pool_knows_the_rules_and_the_validator_obeys_them() -> None:
    assert descriptor_pool.Default().FindFileByName("buf/validate/validate.proto") is validate_pb2.DESCRIPTOR

    order = order_service_pb2.CreateOrderRequest(
        account_id="ACC-1",
        client_order_id="c-1",
        instrument_id="AAPL",
        side=order_terms_pb2.SIDE_BUY,
        type=order_terms_pb2.ORDER_TYPE_LIMIT,
        time_in_force=order_terms_pb2.TIME_IN_FORCE_DAY,
        quantity="10",
        limit_price="-0",
    )

    found = protovalidate.collect_violations(order)

    assert [(each.proto.field.elements[0].field_name, each.proto.rule_id) for each in found if each.proto.field] == [
        ("limit_price", "decimal.positive")
    ]


def test_the_transcoder_gets_every_file_that_an_answer_may_hold() -> None:
    image = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen" / "descriptor" / "trademesh.binpb").read_bytes())
    names = {file.name for file in image.file}

    assert "google/rpc/error_details.proto" in names
    assert {dependency for file in image.file for dependency in file.dependency} <= names
