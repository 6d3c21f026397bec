"""What a method demands of its callers, declared once where the service is wired (`main.py`), complete by construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kernel import validation
from kernel.errors import PermissionDeniedError, Reason, UnauthenticatedError
from kernel.identity import Identity

OUTSIDE_PEERS = frozenset({"edge", "svc-gateway"})
"""The workloads through which users outside the mesh come."""

REQUEST_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPolicy:
    """The demands of one method.

    Attributes:
        peers: workloads that may call; None for every workload of the mesh.
        user_required: a validated user must come with the call.
        roles: the user needs one of these; empty for any.
        write: it changes state, so unknown fields are refused and a timeout leaves the outcome unknown.
        priority: it has concurrency places of its own, so that overload of the others never delays it (cancels, venue facts).
        validate: the contract's rules are checked here; False where the servicer checks item by item.
        pass_invalid: on a client stream, a message that breaks a rule is handed to the servicer as `InvalidMessage` instead of ending it.
        timeout_seconds: bound of a unary call, for callers with no deadline or a longer one; a stream's bound is the server's.
        request_bytes_max: bound of one request message.
    """

    peers: frozenset[str] | None
    user_required: bool
    roles: frozenset[str] = frozenset()
    write: bool
    priority: bool = False
    validate: bool = True
    pass_invalid: bool = False
    timeout_seconds: float = 10.0
    request_bytes_max: int = REQUEST_BYTES_MAX

    def authorize(self, identity: Identity) -> None:
        """Check that the caller may call the method.

        Raises:
            PermissionDeniedError: PEER_NOT_ALLOWED or ROLE_REQUIRED.
            UnauthenticatedError: USER_UNAUTHENTICATED, the method requires a user and none came.
        """
        if self.peers is not None and identity.peer not in self.peers:
            raise PermissionDeniedError(Reason.PEER_NOT_ALLOWED, "this peer may not call this method", metadata={"peer": identity.peer})
        if self.user_required:
            user = identity.user
            if user is None:
                raise UnauthenticatedError(Reason.USER_UNAUTHENTICATED, "the method requires a user")
            if self.roles and self.roles.isdisjoint(user.roles):
                needed = ", ".join(sorted(self.roles))
                text = f"the method requires one of the roles: {needed}"
                raise PermissionDeniedError(Reason.ROLE_REQUIRED, text, metadata={"roles": needed})


def outside(*roles: str, write: bool, **more: Any) -> MethodPolicy:
    """Return the policy of a method for users outside the mesh who have one of the roles; it accepts every field of `MethodPolicy`."""
    return MethodPolicy(peers=OUTSIDE_PEERS, user_required=True, roles=frozenset(roles), write=write, **more)


def inside(*peers: str, write: bool, **more: Any) -> MethodPolicy:
    """Return the policy of a method for other services, named by service account; users travel inside its messages."""
    if not peers:
        raise ValueError("a method for services names the services")
    return MethodPolicy(peers=frozenset(peers), user_required=False, write=write, **more)


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """A contract's service, the object that serves it, and the policy of each of its methods.

    The object has one coroutine method per unary RPC and one async generator method per streaming RPC, named as in the contract, taking
    the request (or an async iterator of requests) and a `CallContext`.

    Raises:
        ValueError: a method without a policy or handler, a policy without a method, or a write whose request type is recursive.
    """

    descriptor: ServiceDescriptor
    servicer: object
    policies: Mapping[str, MethodPolicy] = field(repr=False)

    def __post_init__(self) -> None:
        names = {method.name for method in self.descriptor.methods}
        if names != set(self.policies):
            raise ValueError(f"{self.descriptor.full_name}: policies and methods differ in {sorted(names ^ set(self.policies))}")
        missing = sorted(name for name in names if not callable(getattr(self.servicer, name, None)))
        if missing:
            raise ValueError(f"{self.descriptor.full_name}: {type(self.servicer).__name__} does not serve {missing}")
        for method in self.descriptor.methods:
            if self.policies[method.name].write:
                validation.check_exact(method.input_type)


@dataclass(frozen=True, slots=True)
class BoundMethod:
    """One method, ready to be wrapped: its full name (`/package.Service/Method`), its handler, its policy and its request type."""

    path: str
    handler: Any
    policy: MethodPolicy
    request_type: Any
    client_streaming: bool
    server_streaming: bool


def bound_methods(binding: ServiceBinding) -> list[BoundMethod]:
    """Return the methods of a service with their handlers; compiles the rules of each request type, so that no first call waits.

    Raises:
        protovalidate.CompilationError: a rule of the contract does not compile.
    """
    return [_bind(binding, method) for method in binding.descriptor.methods]


def _bind(binding: ServiceBinding, method: MethodDescriptor) -> BoundMethod:
    request_type: type[Message] = GetMessageClass(method.input_type)
    validation.compile_rules(request_type)
    return BoundMethod(
        path=f"/{binding.descriptor.full_name}/{method.name}",
        handler=getattr(binding.servicer, method.name),
        policy=binding.policies[method.name],
        request_type=request_type,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )
