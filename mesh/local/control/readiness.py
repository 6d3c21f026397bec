"""Which instances take calls: those that the supervisor finds ready, as Kubernetes has it with the endpoints of a Service."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mesh.local import report
from mesh.local.compiler import Proxy
from mesh.local.report import MeshReport, Phase, State
from mesh.local.topology import sidecar_name

_SETTLED = (Phase.READY, Phase.DEGRADED)


class Readiness:
    """What the supervisor's status document says of instances, read again when it was replaced.

    Args:
        status_file: that document; None where nobody writes one, and every instance counts as ready.
        proxies: the sidecars of all instances.
    """

    def __init__(self, status_file: Path | None, proxies: Iterable[Proxy]) -> None:
        self._status_file = status_file
        self._proxies = tuple(proxies)
        self._seen: tuple[int, int] | None = None
        self._unready: frozenset[str] = frozenset()

    def unready(self) -> frozenset[str]:
        """Return the names of instances that should get no calls now; what cannot be read changes nothing."""
        if self._status_file is not None and (stamp := _stamp(self._status_file)) not in (None, self._seen):
            found = report.read(self._status_file)
            if found is not None:
                self._seen, self._unready = stamp, unready(found, self._proxies)
        return self._unready


def unready(found: MeshReport, proxies: Iterable[Proxy]) -> frozenset[str]:
    """Return the instances whose application or sidecar is not ready.

    While a mesh starts or stops there are none, and none of a service that has no ready instance: it is better to ask one that is slow to
    tell that it is well, or to be refused by one that knows why, than to call nobody (Envoy's docs, "Panic threshold").
    """
    if found.phase not in _SETTLED:
        return frozenset()
    known = {item.name: item.state is State.READY for item in found.instances}
    proxies = tuple(proxies)
    ready = {proxy.instance for proxy in proxies if known.get(proxy.instance, True) and known.get(sidecar_name(proxy.instance), True)}
    served = {proxy.service_account for proxy in proxies if proxy.instance in ready}
    return frozenset(proxy.instance for proxy in proxies if proxy.service_account in served and proxy.instance not in ready)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
