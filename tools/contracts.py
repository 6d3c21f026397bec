"""The contract gate: `python -m tools.contracts check` and `python -m tools.contracts baseline [--break REASON]`.

Both buf checks run offline on the image that protoc built. The baseline image is committed; moving it forward is a deliberate act,
and moving it over an incompatible change needs a reason, which belongs into the CHANGELOG too.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.contract_guard import violations
from tools.descriptors import PROTO, ROOT, ProtocError, compile_image
from tools.image import Image

BASELINE = PROTO / "baseline.binpb"


def lint(image: bytes) -> list[str]:
    """buf's STANDARD and COMMENTS findings on an image with source info, one per line; empty when clean."""
    return _buf(image, "lint")


def breaking(image: bytes, baseline: Path) -> list[str]:
    """buf's FILE and WIRE_JSON findings of image against the baseline file, one per line; empty when compatible."""
    return _buf(image, "breaking", "--against", str(baseline))


def _buf(image: bytes, command: str, *arguments: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.binpb"
        path.write_bytes(image)
        buf = Path(sys.executable).parent / "buf"
        call = [str(buf), command, str(path), *arguments, "--config", str(ROOT / "buf.yaml")]
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    findings = (done.stdout + done.stderr).strip().splitlines()
    return findings or ([f"buf {command} ended with {done.returncode}"] if done.returncode else [])


def incompatibilities(image: bytes, baseline: Path) -> list[str]:
    """Everything in which image breaks a client of the baseline file; a missing baseline is a finding too."""
    if not baseline.is_file():
        return [f"{baseline.name} is missing; run `make baseline`"]
    return [*breaking(image, baseline), *violations(Image(baseline.read_bytes()), Image(image))]


def _check() -> int:
    image = compile_image(source_info=True)
    findings = [*lint(image), *incompatibilities(image, BASELINE)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def _move_baseline(reason: str | None) -> int:
    image = compile_image()
    findings = incompatibilities(image, BASELINE) if BASELINE.is_file() else []
    for finding in findings:
        print(finding)
    if findings and not reason:
        print("The baseline stays: clients of it would break. If that is meant, say why: make baseline ARGS='--break \"reason\"'")
        return 1
    BASELINE.write_bytes(image)
    print(f"proto/{BASELINE.name} moved" + (f" over {len(findings)} incompatible changes: {reason}" if findings else ""))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns 0 when the contracts pass or the baseline moved, else 1."""
    parser = argparse.ArgumentParser(prog="tools.contracts", description="Check the contracts, or move their baseline.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="lint, and compatibility with the baseline")
    move = commands.add_parser("baseline", help="make proto/ the baseline")
    move.add_argument("--break", dest="reason", help="why an incompatible change is right")
    options = parser.parse_args(arguments)
    try:
        return _check() if options.command == "check" else _move_baseline(options.reason)
    except ProtocError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
