"""The methods that are bridged, read from the contracts: every reading method of every service that outside clients have a REST path to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.api import annotations_pb2
from google.longrunning import operations_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kernel.errors import NotFoundError, Reason
from svc_gateway.domain.protocol import is_read
from trademesh.custody.v1 import custody_service_pb2
from trademesh.marketdata.v1 import market_data_service_pb2
from trademesh.oms.v1 import order_service_pb2
from trademesh.portfolio.v1 import portfolio_service_pb2
from trademesh.reporting.v1 import reporting_service_pb2
from trademesh.risk.v1 import reference_data_service_pb2, risk_service_pb2

FILES: Mapping[str, tuple[Any, ...]] = {
    "svc-oms": (order_service_pb2,),
    "svc-risk": (risk_service_pb2, reference_data_service_pb2),
    "svc-marketdata": (market_data_service_pb2,),
    "svc-custody": (custody_service_pb2,),
    "svc-portfolio": (portfolio_service_pb2,),
    # Operations of reports are got and listed beside them (AIP-151).
    "svc-reporting": (reporting_service_pb2, operations_pb2),
}
"""Where each service's outside contracts are."""


@dataclass(frozen=True, slots=True)
class Method:
    """One bridged method. `name` is `package.Service/Method`; `backend` serves it."""

    name: str
    backend: str
    request_type: type[Message]
    response_type: type[Message]
    streaming: bool

    @property
    def path(self) -> str:
        """The path of its calls."""
        return f"/{self.name}"


class Catalogue:
    """Finds bridged methods by name."""

    def __init__(self, files: Mapping[str, Iterable[Any]] = FILES) -> None:
        self.methods: dict[str, Method] = {}
        self._others: set[str] = set()
        for backend, modules in files.items():
            for module in modules:
                self._add(backend, cast("FileDescriptor", module.DESCRIPTOR))

    def _add(self, backend: str, file: FileDescriptor) -> None:
        for service in file.services_by_name.values():
            for method in service.methods:
                name = f"{service.full_name}/{method.name}"
                if is_read(method.name) and not method.client_streaming and _has_path(method):
                    self.methods[name] = _method(backend, service, method)
                else:
                    self._others.add(name)

    def find(self, name: str) -> Method:
        """Return a method.

        Raises:
            NotFoundError: METHOD_NOT_FOUND, there is none of this name, or it is not one that only reads.
        """
        method = self.methods.get(name)
        if method is not None:
            return method
        if name in self._others:
            text = "only reads and server streams go over a socket; call this method by REST or gRPC"
        else:
            text = "no such method; its name is package.Service/Method"
        raise NotFoundError(Reason.METHOD_NOT_FOUND, text, metadata={"method": name[:256]})

    def paths(self, backend: str) -> frozenset[str]:
        """Return the paths of a service's bridged methods."""
        return frozenset(method.path for method in self.methods.values() if method.backend == backend)


def _has_path(method: MethodDescriptor) -> bool:
    return bool(cast("Any", method.GetOptions()).HasExtension(annotations_pb2.http))


def _method(backend: str, service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    return Method(
        name=f"{service.full_name}/{method.name}",
        backend=backend,
        request_type=GetMessageClass(method.input_type),
        response_type=GetMessageClass(method.output_type),
        streaming=method.server_streaming,
    )
