"""A mesh of real Envoys around applications that are played: certificates, configuration and tokens as in a whole mesh."""

from __future__ import annotations

import asyncio
import datetime
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from mesh.local.ca import Authority
from mesh.local.compiler import Proxy, host_name
from mesh.local.control.keys import IssuerKeys
from mesh.local.control.plane import ControlPlane, Paths
from mesh.local.layout import Layout
from mesh.local.operator import TRUST_DOMAIN
from mesh.local.services import FURTHER_PORTS
from mesh.local.sidecar import GRPC_PORT, MANIFESTS, envoy_unit, proxies, write_secrets
from mesh.local.supervisor import Supervisor
from mesh.local.topology import Topology, sidecar_name
from mesh.local.watches import require_watches
from tests.integration.mesh.application import Application, serving
from tests.unit.mesh.workloads import Immediate

ISSUER = "http://127.0.0.1:1"
AUDIENCE = "trademesh"
WAIT_SECONDS_MAX = 20.0

CREATE = "/trademesh.oms.v1.OrderService/CreateOrder"
CANCEL = "/trademesh.oms.v1.OrderService/CancelOrder"
GET_ORDER = "/trademesh.oms.v1.OrderService/GetOrder"
CHECK = "/trademesh.risk.v1.PreTradeService/CheckOrders"
READ_EVENTS = "/trademesh.type.v1.EventLogService/ReadEvents"
RISK_STATE = "/trademesh.risk.v1.RiskService/GetRiskState"


class Issuer:
    """Signs tokens as the identity provider does."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def keys(self) -> bytes:
        """Return its key set."""
        key: Any = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**key, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()

    def token(self, *, seconds: float = 300, **changes: Any) -> str:
        """Return a token of ada's that ends in so many seconds, with claims changed."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "tenant": "demo", "roles": ["trader"], "accounts": ["ACC-1"]}
        return jwt.encode({**claims, "exp": int(time.time() + seconds), **changes}, self._key, algorithm="ES256", headers={"kid": "one"})


@dataclass
class World:
    """A running mesh; `unready` names instances that the control plane is told to leave out."""

    layout: Layout
    plane: ControlPlane
    topology: Topology
    applications: Mapping[str, Application]
    issuer: Issuer
    manifests: Path
    supervisor: Supervisor
    unready: set[str]

    def sidecar_pid(self, instance: str) -> int:
        """Return the process id of an instance's Envoy."""
        pid = self.supervisor.report.instance(sidecar_name(instance)).pid
        assert pid is not None, instance
        return pid

    def proxy(self, instance: str) -> Proxy:
        """Return a sidecar."""
        return next(proxy for proxy in self.topology.proxies if proxy.instance == instance)

    def authority(self) -> Authority:
        """Return the mesh's certificate authority, for certificates that a test holds itself."""
        return Authority.open(self.layout.data("ca"), trust_domain=TRUST_DOMAIN, now=lambda: datetime.datetime.now(datetime.UTC))

    @asynccontextmanager
    async def channel(self, instance: str, callee: str) -> AsyncIterator[grpc.aio.Channel]:
        """Return a channel through an instance's own sidecar to a service."""
        options = [("grpc.default_authority", f"{host_name(callee)}:{GRPC_PORT}"), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.proxy(instance).egress_socket}", options=options) as channel:
            yield channel

    async def call(
        self, instance: str, callee: str, path: str, *, token: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> Any:
        """Call a service through an instance's own sidecar and return what it said."""
        async with self.channel(instance, callee) as channel:
            return await call(channel, path, token=token, headers=headers)

    async def admin(self, instance: str, path: str) -> str:
        """Ask an Envoy's admin socket."""
        connector = aiohttp.UnixConnector(str(self.proxy(instance).admin_socket))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://envoy{path}") as answer:
            return await answer.text()


async def call(channel: Any, path: str, *, token: str | None = None, headers: tuple[tuple[str, str], ...] = ()) -> Any:
    """Make one call, with a user's token if there is one; return what the application said."""
    bearer = (("authorization", f"Bearer {token}"),) if token is not None else ()
    return json.loads(await channel.unary_unary(path)(b"", timeout=10.0, metadata=(*bearer, *headers)))


async def refusal(calling: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call ends with."""
    try:
        answer = await calling
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"was answered: {answer}")


async def until(condition: Callable[[], Any]) -> None:
    """Return once the condition holds; it may be a coroutine function."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(root: Path, instances: Mapping[str, list[str]]) -> AsyncIterator[World]:
    """Run sidecars of these instances by service, and applications behind all but the edge's."""
    layout = Layout(root)
    layout.create()
    names = [name for replicas in instances.values() for name in replicas]
    write_secrets(layout, names)
    require_watches(len(names))
    # The edge's port is its own matter; here it only calls.
    sidecars = tuple(
        replace(proxy, applications={}) if proxy.service_account == "edge" else proxy for proxy in proxies(layout, instances, FURTHER_PORTS)
    )
    topology = Topology(sidecars)
    manifests = shutil.copytree(MANIFESTS, layout.data("manifests"))
    issuer = Issuer()
    unready: set[str] = set()
    plane = ControlPlane(
        topology,
        Paths(manifests, layout.data("ca"), layout.data("keys.json"), layout.data("edge-ca")),
        issuer=ISSUER,
        keys=IssuerKeys(f"{ISSUER}/jwks", layout.data("keys.json"), lambda address: issuer.keys()),
        certificate_seconds=3_600,
        keys_seconds=10.0,
        now=lambda: datetime.datetime.now(datetime.UTC),
        unready=lambda: frozenset(unready),
        asking=Immediate(),
    )
    plane.start()
    plane.step()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, layout.runtime)
        applications = {
            proxy.instance: await stack.enter_async_context(serving(layout.socket(proxy.instance), proxy.secret))
            for proxy in sidecars
            if proxy.service_account != "edge"
        }
        supervisor = Supervisor([replace(envoy_unit(layout, proxy), after=()) for proxy in sidecars], layout)
        await supervisor.start(timeout_seconds=WAIT_SECONDS_MAX)
        stack.push_async_callback(supervisor.stop)
        yield World(layout, plane, topology, applications, issuer, manifests, supervisor, unready)
