"""The control process of a mesh on one machine, configured by the environment (`ControlConfig`)."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kernel.config import ConfigError, Seconds, load, setting
from mesh.local.compiler import ManifestError
from mesh.local.control.keys import IssuerKeys
from mesh.local.control.plane import ControlPlane, Paths
from mesh.local.control.readiness import Readiness
from mesh.local.state import LocalStateError
from mesh.local.topology import Topology
from mesh.local.unit import CONFIGURATION_EXIT_CODE

STEP_SECONDS = 0.1
"""How long a change may go unseen: of readiness, above all."""
KEPT_KEYS_FILE = "issuer-keys.json"
AUTHORITY_DIRECTORY = "ca"
EDGE_AUTHORITY_DIRECTORY = "edge-ca"


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """How the control process runs.

    Attributes:
        topology_file: the workloads, as `Topology` writes them.
        manifests_directory: the Istio manifests.
        data_directory: its own; holds the root key and the issuer's last known keys.
        ready_file: gets the process id once every sidecar can start.
        status_file: the supervisor's status document; instances that it finds not ready get no calls. Unset, all get calls.
        issuer: the `iss` of tokens; unset leaves the one that the manifests name.
        jwks_uri: where the issuer's keys are; unset refuses every token.
        jwks_seconds: how often they are fetched.
        certificate_seconds: how long a workload's certificate is valid; replaced at half of that.
    """

    topology_file: Path
    manifests_directory: Path
    data_directory: Path
    ready_file: Path
    status_file: Path | None = None
    issuer: str | None = None
    jwks_uri: str | None = setting(None, pattern=r"https?://\S+")
    jwks_seconds: Seconds = setting(Seconds(10), minimum=1, maximum=3_600)
    certificate_seconds: int = setting(3_600, minimum=60, maximum=86_400)


def run(config: ControlConfig, stop: threading.Event) -> None:
    """Serve until told to stop.

    Raises:
        ConfigError, ManifestError, LocalStateError: a person has to mend something first.
    """
    try:
        topology = Topology.read(config.topology_file)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError([f"TRADEMESH_TOPOLOGY_FILE: cannot be read: {config.topology_file} ({error})"]) from error
    data = config.data_directory
    paths = Paths(config.manifests_directory, data / AUTHORITY_DIRECTORY, data / KEPT_KEYS_FILE, data / EDGE_AUTHORITY_DIRECTORY)
    plane = ControlPlane(
        topology,
        paths,
        issuer=config.issuer,
        keys=IssuerKeys(config.jwks_uri, paths.kept_keys),
        certificate_seconds=config.certificate_seconds,
        keys_seconds=config.jwks_seconds,
        now=lambda: datetime.datetime.now(datetime.UTC),
        unready=Readiness(config.status_file, topology.proxies).unready,
    )
    plane.start()
    config.ready_file.write_text(str(os.getpid()))
    while not stop.wait(STEP_SECONDS):
        plane.step()


def main() -> int:
    """Run; return the exit code: 78 for configuration or manifests that a person has to mend."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stop = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    try:
        run(load(ControlConfig), stop)
    except (ConfigError, ManifestError, LocalStateError) as error:
        sys.stderr.write(f"control: {error}\n")
        return CONFIGURATION_EXIT_CODE
    return 0
