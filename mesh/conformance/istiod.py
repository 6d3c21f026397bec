"""Builds Istio's programs with Go and runs them on loopback. Everything that they need or write is in `.venv/istio`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from mesh.conformance.cluster import empty_cluster
from mesh.conformance.render import Rendered, text

MODULE = Path(__file__).parent / "istiod"
CACHE = Path(sys.prefix) / "istio"
DISCOVERY, ORACLE = "pilot-discovery", "oracle"
PACKAGES: Mapping[str, str] = {DISCOVERY: "istio.io/istio/pilot/cmd/pilot-discovery", ORACLE: "."}
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0

Json = dict[str, Any]

# Plain Envoy knows no filter of Istio's own, so none is asked for; and nobody here needs certificates from istiod.
SETTINGS: Mapping[str, str] = {
    "ENABLE_CA_SERVER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "ISTIOD_CUSTOM_HOST": "localhost",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}


class IstiodError(Exception):
    """Istio's programs cannot be built, or do not take what they are given. The text is for people."""


def go() -> Path | None:
    """Return the Go toolchain: the project's own (`requirements-bench.lock`), else one on the path."""
    own = Path(sys.prefix) / "go" / "go" / "bin" / "go"
    if own.is_file():
        return own
    found = shutil.which("go")
    return Path(found) if found is not None else None


def build(toolchain: Path) -> float:
    """Build what is not built yet; returns the seconds it took. The first time takes minutes.

    Raises:
        IstiodError: it does not build.
    """
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "GOCACHE": str(CACHE / "objects"),
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOMODCACHE": str(CACHE / "modules"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    for name, package in PACKAGES.items():
        command = [str(toolchain), "build", "-trimpath", "-ldflags=-s -w", "-o", str(CACHE / name), package]
        done = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise IstiodError(f"{name} does not build:\n{done.stderr[-4000:]}")
    return time.monotonic() - started


@contextmanager
def discovery(rendered: Rendered) -> Iterator[str]:
    """Run `pilot-discovery` on the manifests for workloads whose sockets nobody redirects; yields its address.

    Raises:
        IstiodError: it refuses the manifests, or does not become ready.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="istiod-")))
        kubeconfig = stack.enter_context(empty_cluster())
        (folder / "config").mkdir()
        (folder / "config" / "objects.yaml").write_text(text(rendered.none_mode()))
        (folder / "mesh.yaml").write_text(rendered.mesh)
        (folder / "kubeconfig").write_text(kubeconfig)
        ports = {name: _free_port() for name in ("grpc", "http", "monitoring")}
        command = [
            *(str(CACHE / DISCOVERY), "discovery", "--registries=Kubernetes", f"--kubeconfig={folder / 'kubeconfig'}"),
            *(f"--configDir={folder / 'config'}", f"--meshConfig={folder / 'mesh.yaml'}"),
            *(f"--grpcAddr=127.0.0.1:{ports['grpc']}", "--secureGRPCAddr=", f"--httpAddr=127.0.0.1:{ports['http']}", "--httpsAddr="),
            f"--monitoringAddr=127.0.0.1:{ports['monitoring']}",
        ]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        stack.callback(_stop, process)
        _await_ready(process, ports["http"], log)
        yield f"127.0.0.1:{ports['grpc']}"


@contextmanager
def redirected(rendered: Rendered) -> Iterator[str]:
    """Run the server of Istio's own tests on the manifests, for workloads whose sockets are redirected; yields its address.

    Raises:
        IstiodError: it refuses the manifests.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="istiod-")))
        (folder / "objects.yaml").write_text(text(rendered.objects))
        (folder / "mesh.yaml").write_text(rendered.mesh)
        log = folder / "log"
        output = stack.enter_context(log.open("wb"))
        command = [str(CACHE / ORACLE), "redirect", str(folder / "mesh.yaml"), str(folder / "objects.yaml")]
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        )
        stack.callback(_stop, process)
        assert process.stdout is not None
        assert process.stdin is not None
        stack.callback(process.stdout.close)
        stack.callback(process.stdin.close)
        address = _first_address(process.stdout)
        if address is None:
            raise IstiodError(f"{ORACLE} did not start:\n{_tail(log)}")
        yield address


def _first_address(lines: IO[str]) -> str | None:
    """Its libraries print too."""
    return next((line.strip() for line in lines if line.startswith("127.0.0.1:")), None)


def analysis(policies: Iterable[Json], cluster: Iterable[Json], mesh: str) -> Json:
    """Return what Istio's analyzers say: how many there are, which did not run, findings.

    Args:
        policies: Istio's objects.
        cluster: the namespaces, Services and Pods among which they are.
        mesh: MeshConfig, as text.

    Raises:
        IstiodError: it cannot read them.
    """
    with tempfile.TemporaryDirectory(prefix="istiod-") as folder:
        objects, mesh_file = Path(folder) / "objects.yaml", Path(folder) / "mesh.yaml"
        objects.write_text(text([*policies, *cluster]))
        mesh_file.write_text(mesh)
        # Its libraries print too, before it does.
        found: Json = json.loads(_said("analyze", mesh_file, objects).splitlines()[-1])
    return {**found, "skipped": found["skipped"] or []}


def kustomize(directory: Path) -> list[Json]:
    """Return the objects that a cluster gets of a kustomization.

    Raises:
        IstiodError: kustomize refuses it.
    """
    return list(yaml.safe_load_all(_said("kustomize", directory.resolve())))


def _said(task: str, *paths: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="istiod-") as folder:
        command = [str(CACHE / ORACLE), task, *map(str, paths)]
        done = subprocess.run(command, cwd=folder, env=_environment(Path(folder)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise IstiodError(f"{ORACLE} {task}:\n{done.stderr[-4000:]}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(folder), "POD_NAMESPACE": "istio-system", **SETTINGS}


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < end:
        if process.poll() is not None:
            raise IstiodError(f"{DISCOVERY} ended with {process.returncode}:\n{_tail(log)}")
        if _ready(port):
            return
        time.sleep(0.05)
    raise IstiodError(f"{DISCOVERY} was not ready in {READY_SECONDS_MAX:.0f} s:\n{_tail(log)}")


def _ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nhost: istiod\r\nconnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if "\terror\t" in line or line.startswith(("Error", "panic"))]
    return "\n".join((telling or lines)[-12:])


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
