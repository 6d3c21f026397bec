"""The ceiling: a bare grpc.aio server that parses an order request and sends it back, with nothing around it.

`python -m tests.bench.echo_server SOCKET` serves until it is terminated and prints `ready` once it listens.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import uvloop

from trademesh.oms.v1 import order_service_pb2


async def _unary(
    request: order_service_pb2.CreateOrderRequest,
    context: "grpc.aio.ServicerContext[order_service_pb2.CreateOrderRequest, order_service_pb2.CreateOrderRequest]",
) -> order_service_pb2.CreateOrderRequest:
    return request


async def _stream(
    requests: AsyncIterator[order_service_pb2.EnterOrdersRequest],
    context: "grpc.aio.ServicerContext[order_service_pb2.EnterOrdersRequest, order_service_pb2.EnterOrdersRequest]",
) -> AsyncIterator[order_service_pb2.EnterOrdersRequest]:
    async for request in requests:
        yield request


async def serve(socket: str) -> None:
    """Serves the echo on a UNIX socket until SIGTERM or SIGINT."""
    server = grpc.aio.server()
    unary, stream = order_service_pb2.CreateOrderRequest, order_service_pb2.EnterOrdersRequest
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary, unary.FromString, unary.SerializeToString),
        "Stream": grpc.stream_stream_rpc_method_handler(_stream, stream.FromString, stream.SerializeToString),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("trademesh.bench.Echo", handlers)])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print("ready", flush=True)
    await stopped.wait()
    await server.stop(grace=0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
