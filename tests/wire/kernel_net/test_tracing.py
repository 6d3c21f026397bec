"""Traces over real gRPC: sampled calls leave spans in the local file, others nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kernel.grpc_client import ClientConfig, MeshChannel
from kernel.server_context import CallContext
from kernel.telemetry import Telemetry, TelemetryConfig
from kernel.telemetry_traces import current_traceparent
from tests.wire.kernel_net.serving import headers, order_request, serving
from tests.wire.serving import insecure
from trademesh.oms.v1 import order_service_pb2, order_service_pb2_grpc

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-"


def spans(folder: Path) -> list[dict[str, Any]]:
    path = folder / "svc-oms-0.traces.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_sampled_call_leaves_spans_across_services_and_an_unsampled_none(tmp_path: Path, kind: str) -> None:
    telemetry = Telemetry(TelemetryConfig("svc-oms", "svc-oms-0", folder=tmp_path))
    telemetry.start()
    headers_file = tmp_path / "headers.json"
    headers_file.write_text(json.dumps({"*": dict(headers())}))
    headers_file.chmod(0o600)
    seen: list[str] = []
    async with serving("risk") as risk, serving("oms", telemetry=telemetry) as oms:
        config = ClientConfig(dependency="svc-risk", targets=(risk.target,), headers_file=headers_file)
        async with MeshChannel(config, tracing=telemetry.tracing) as downstream, insecure(oms.target) as channel:

            async def ask_risk(_: object, context: CallContext) -> None:
                seen.append(current_traceparent())
                await order_service_pb2_grpc.OrderServiceStub(downstream).CreateOrder(order_request())

            oms.orders.script = ask_risk
            stub = order_service_pb2_grpc.OrderServiceStub(channel)
            for flags in ("00", "01"):
                metadata = (*headers(), ("traceparent", PARENT + flags))
                if kind == "unary":
                    await stub.CreateOrder(order_request(), metadata=metadata, timeout=5)
                else:
                    request = order_service_pb2.EnterOrdersRequest(correlation_id=1, create=order_request())
                    assert len([answer async for answer in stub.EnterOrders(iter([request]), metadata=metadata, timeout=5)]) == 1
        lines = oms.log_lines()
        downstream_traces = [call.trace_id for call in risk.orders.calls]
        downstream_sampled = [call.sampled for call in risk.orders.calls]
    await telemetry.stop()
    found = spans(tmp_path)
    assert {span["context"]["trace_id"] for span in found} == {f"0x{TRACE}"}
    assert [line["trace_id"] for line in lines] == [TRACE, TRACE]
    if kind == "unary":
        assert seen[0] == ""
        assert seen[1].startswith(f"00-{TRACE}-")
        assert sorted(span["kind"] for span in found) == ["SpanKind.CLIENT", "SpanKind.SERVER"]
        assert (downstream_traces, downstream_sampled) == ([TRACE, TRACE], [False, True])
    else:
        assert [span["kind"] for span in found] == ["SpanKind.SERVER"]


async def test_a_refused_call_marks_its_span(tmp_path: Path) -> None:
    telemetry = Telemetry(TelemetryConfig("svc-oms", "svc-oms-0", folder=tmp_path, root_ratio=1.0))
    telemetry.start()
    async with serving("oms", telemetry=telemetry) as oms, insecure(oms.target) as channel:
        stub = order_service_pb2_grpc.OrderServiceStub(channel)
        with pytest.raises(Exception, match="decimal"):
            await stub.CreateOrder(order_request(quantity="NaN"), metadata=headers(), timeout=5)
    await telemetry.stop()
    [span] = spans(tmp_path)
    assert span["attributes"]["rpc.grpc.status_code"] == 3
