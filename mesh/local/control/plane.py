"""What the control process does, step by step, on a clock that is given."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mesh.edge.launch import publish
from mesh.local.ca import Authority, Svid, flip, publish_certificate
from mesh.local.compiler import Manifests, compile_mesh, load, registry
from mesh.local.compiler.problems import ManifestError
from mesh.local.compiler.proxies import NAMESPACE
from mesh.local.compiler.tls import spiffe_id
from mesh.local.control.doors import SERVICE_ACCOUNT, EdgePlane
from mesh.local.control.keys import IssuerKeys, KeysError
from mesh.local.embedded import write_private
from mesh.local.topology import Topology

BOOTSTRAP_FILE = "bootstrap.json"
MANIFEST_ISSUER = "https://issuer.trademesh.local"
"""The issuer in the manifests, for which a local one stands in."""

_EAGER_SECONDS = 1.0
_DIGEST_CHARACTERS = 12
_logger = logging.getLogger(__name__)

Now = Callable[[], datetime.datetime]


def digest(manifests: Path) -> str:
    """Return what tells the manifests of a directory from others, as the log names them once they are in force.

    Raises:
        OSError: they cannot be read.
    """
    whole = hashlib.sha256()
    for path in sorted(manifests.glob("*.yaml")):
        whole.update(f"{path.name}\n{path.read_text()}".encode())
    return whole.hexdigest()[:_DIGEST_CHARACTERS]


@dataclass(frozen=True)
class Paths:
    """Where a control plane reads and writes: manifests, root key, kept keys of the issuer, root key of the edge's server certificates."""

    manifests: Path
    authority: Path
    kept_keys: Path
    edge_authority: Path


class ControlPlane:
    """Issues certificates and writes configuration, atomically and only what changed.

    Args:
        topology: the workloads.
        paths: see `Paths`.
        issuer: the `iss` of tokens; None leaves the manifests' own.
        keys: of the issuer.
        certificate_seconds: how long a certificate is valid; it is replaced at half of that.
        keys_seconds: how often the issuer's keys are fetched.
        now: the wall clock, with its zone.
        unready: says which instances take no calls now.
        asking: where the issuer is waited for, which must hold up nothing else.
    """

    def __init__(
        self,
        topology: Topology,
        paths: Paths,
        *,
        issuer: str | None,
        keys: IssuerKeys,
        certificate_seconds: int,
        keys_seconds: float,
        now: Now,
        unready: Callable[[], frozenset[str]] = frozenset,
        asking: Executor | None = None,
    ) -> None:
        self._topology = topology
        self._paths = paths
        self._issuer = issuer or MANIFEST_ISSUER
        self._keys = keys
        self._certificate_seconds = certificate_seconds
        self._keys_interval = datetime.timedelta(seconds=keys_seconds)
        self._now = now
        self._unready = unready
        self._left_out: frozenset[str] = frozenset()
        self._authority: Authority | None = None
        self._svids: dict[Path, Svid] = {}
        self._edge: EdgePlane | None = None
        self._manifests: Manifests | None = None
        self._seen: dict[str, tuple[int, int]] = {}
        self._fetch_at = now()
        self._asking = asking or ThreadPoolExecutor(1, "issuer")
        self._asked: Future[str] | None = None
        self._complaint = ""

    def start(self) -> None:
        """Compile and write everything that a sidecar needs to start.

        Raises:
            ManifestError: the manifests cannot be compiled; nothing was written.
            LocalStateError: the root key cannot be used.
        """
        self._seen = self._stamps()
        self._left_out = self._unready()
        self._manifests = self._load()
        # Compiled before anything is written, so that a refusal leaves no half of it.
        manifests = self._registered(self._manifests)
        compiled = compile_mesh(manifests, self._topology.proxies, {self._issuer: self._keys.current})
        trust_domain = self._manifests.mesh["trustDomain"]
        self._authority = Authority.open(self._paths.authority, trust_domain=trust_domain, now=self._now)
        site = self._topology.edge
        if site is not None:
            self._edge = EdgePlane(
                site, self._paths.edge_authority, issuer=self._issuer, certificate_seconds=self._certificate_seconds, now=self._now
            )
            publish(*self._edge.configuration(manifests, self._keys.current))
        self._rotate()
        for proxy in self._topology.proxies:
            flip(proxy.configuration, compiled[proxy.instance].files())
            write_private(proxy.configuration / BOOTSTRAP_FILE, json.dumps(compiled[proxy.instance].bootstrap, indent=1))

    def step(self) -> None:
        """Do what is due: replace certificates, fetch keys, follow readiness, compile changed manifests.

        What fails is logged, and what was there stays.
        """
        self._rotate()
        changed = self._refresh_keys() | self._refresh_ready()
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            try:
                before, fresh = digest(self._paths.manifests), self._load()
                self._write(fresh)
                self._manifests, changed = fresh, False
                if before == digest(self._paths.manifests):
                    # Otherwise they are changing just now, and the next step has all of it.
                    _logger.info("manifests %s are in force", before)
            except ManifestError as error:
                _logger.error("the last good manifests stay in force: %s", error)
        if changed:
            assert self._manifests is not None, "start first"
            self._write(self._manifests)

    def _write(self, manifests: Manifests) -> None:
        """Compile all of it, then write all of it.

        Raises:
            ManifestError: nothing was written.
        """
        whole = self._registered(manifests)
        compiled = compile_mesh(whole, self._topology.proxies, {self._issuer: self._keys.current})
        if self._edge is not None:
            publish(*self._edge.configuration(whole, self._keys.current))
        written = sum(flip(proxy.configuration, compiled[proxy.instance].files()) for proxy in self._topology.proxies)
        _logger.info("configuration of %d sidecars replaced", written)

    def _load(self) -> Manifests:
        return load(self._paths.manifests).with_issuer(MANIFEST_ISSUER, self._issuer)

    def _registered(self, manifests: Manifests) -> Manifests:
        """Return manifests with the registry of instances that take calls."""
        return registry(manifests, (proxy for proxy in self._topology.proxies if proxy.instance not in self._left_out))

    def _refresh_ready(self) -> bool:
        left_out = self._unready()
        if left_out == self._left_out:
            return False
        for name in sorted(left_out ^ self._left_out):
            _logger.info("%s gets %s", name, "no calls until it is ready" if name in left_out else "calls again")
        self._left_out = left_out
        return True

    def _stamps(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self._paths.manifests.glob("*.yaml"):
            status = path.stat()
            found[path.name] = (status.st_mtime_ns, status.st_size)
        return found

    def _rotate(self) -> None:
        assert self._authority is not None, "start first"
        assert self._manifests is not None, "start first"
        accounts = {proxy.certificates: proxy.service_account for proxy in self._topology.proxies}
        if self._edge is not None and self._topology.edge is not None:
            accounts[self._topology.edge.identity] = SERVICE_ACCOUNT
            self._edge.rotate()
        moment = self._now()
        for directory, account in accounts.items():
            held = self._svids.get(directory)
            if held is not None and moment < held.half_life():
                continue
            name = spiffe_id(self._manifests.mesh["trustDomain"], NAMESPACE, account)
            svid = self._svids[directory] = self._authority.issue(name, seconds=self._certificate_seconds)
            publish_certificate(directory, svid)

    def _refresh_keys(self) -> bool:
        moment = self._now()
        if self._asked is None and moment >= self._fetch_at:
            self._asked = self._asking.submit(self._keys.ask)
        if self._asked is None or not self._asked.done():
            return False
        asked, self._asked = self._asked, None
        try:
            changed = self._keys.take(asked.result())
            self._complaint = ""
        except KeysError as error:
            changed = False
            # An issuer that starts beside us is looked for often, and once is enough to say that it is away.
            if str(error) != self._complaint:
                self._complaint = str(error)
                _logger.warning("the last known keys of the issuer stay in force: %s", error)
        interval = self._keys_interval if self._keys.known else datetime.timedelta(seconds=_EAGER_SECONDS)
        self._fetch_at = moment + interval
        return changed
