"""Descriptor sets: third-party protos from installed packages, and our own proto/ compiled against them.

No third-party `.proto` is copied into the repository. `googleapis-common-protos` ships its sources; `protovalidate` ships
`buf/validate/validate.proto` only as a descriptor inside its generated Python code.
"""

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from google.protobuf import descriptor_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
VALIDATE_PROTO = "buf/validate/validate.proto"
# The transcoder drops the body of an error whose types it does not know, so these ship in every image.
_REGISTERED_NAMES = {"google/longrunning/operations_proto.proto": "google/longrunning/operations.proto"}
"""googleapis-common-protos ships the source under one name and registers its descriptor under another, where generated code looks."""
ALWAYS_INCLUDED = ("google/rpc/error_details.proto", "google/rpc/status.proto")


class ProtocError(Exception):
    """protoc refused its input; the text is protoc's own, one `file:line:column: message` per line."""


def run_protoc(arguments: Sequence[str]) -> None:
    """Runs grpcio-tools' protoc, which knows google/protobuf/*.proto.

    Raises:
        ProtocError: protoc ended with a non-zero code.
    """
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "--fatal_warnings", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ProtocError(done.stderr.strip())


def own_protos(proto_root: Path = PROTO) -> list[str]:
    """Names of our own files relative to the proto root, sorted."""
    return sorted(path.relative_to(proto_root).as_posix() for path in proto_root.rglob("*.proto"))


@cache
def third_party_set() -> bytes:
    """A serialized FileDescriptorSet of google/{api,longrunning,rpc,type}, google/protobuf and buf/validate, in dependency order."""
    site_packages = Path(sysconfig.get_path("purelib"))
    names = sorted(
        path.relative_to(site_packages).as_posix()
        for folder in ("api", "longrunning", "rpc", "type")
        for path in (site_packages / "google" / folder).glob("*.proto")
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "google.binpb"
        wanted = [*names, "google/protobuf/descriptor.proto", "google/protobuf/duration.proto", "google/protobuf/timestamp.proto"]
        wanted += ["google/protobuf/empty.proto", "google/protobuf/field_mask.proto"]
        run_protoc([f"-I{site_packages}", "--include_imports", f"--descriptor_set_out={target}", *wanted])
        files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    for file in files.file:
        file.name = _REGISTERED_NAMES.get(file.name, file.name)
    files.file.append(descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary()))
    return files.SerializeToString(deterministic=True)


def compile_image(*, proto_root: Path = PROTO, source_info: bool = False) -> bytes:
    """Compiles proto_root into a serialized FileDescriptorSet with all imports and the error detail types.

    Args:
        proto_root: folder whose `.proto` files are compiled.
        source_info: keep comments and positions, which lint and documentation need and the transcoder does not.

    Raises:
        ProtocError: a file does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        third_party = Path(folder) / "third_party.binpb"
        third_party.write_bytes(third_party_set())
        target = Path(folder) / "image.binpb"
        options = ["--include_imports", f"--descriptor_set_out={target}"] + (["--include_source_info"] if source_info else [])
        run_protoc([f"-I{proto_root}", f"--descriptor_set_in={third_party}", *options, *own_protos(proto_root), *ALWAYS_INCLUDED])
        return target.read_bytes()
