"""`python -m stack.grpc_stubs FOLDER`: what a gRPC client needs to call the scorer.

Writes TorchServe's own `inference.proto` and what it imports, for clients in any language, and the
Python modules made from it. Both come out of the installed TorchServe, so they fit the server.
"""

import argparse
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from stack.torchserve import torchserve_folder

_PROTO = "inference.proto"
_IMPORTED = "google/rpc/status.proto"


def write_stubs(folder: Path) -> list[Path]:
    """Write the protocol and its Python modules; return the modules' paths.

    Raises `subprocess.CalledProcessError` when the compiler fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(torchserve_folder() / "frontend" / "model-server.jar") as jar:
        for name in (_PROTO, _IMPORTED):
            jar.extract(name, folder)
    subprocess.run(  # noqa: S603 - our own interpreter
        [
            sys.executable, "-m", "grpc_tools.protoc", "--proto_path", str(folder),
            "--python_out", str(folder), "--pyi_out", str(folder),
            "--grpc_python_out", str(folder), str(folder / _PROTO),
        ],
        check=True,
    )  # fmt: skip
    return sorted(folder.glob("inference_pb2*"))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stack.grpc_stubs",
        description="Write TorchServe's inference.proto and the Python client made from it.",
    )
    parser.add_argument("folder", type=Path, help="where to write; put it on PYTHONPATH")
    options = parser.parse_args()
    if importlib.util.find_spec("grpc_tools") is None:
        sys.exit("error: grpcio-tools is not installed: pip install --constraint constraints.txt "
                 "grpcio-tools googleapis-common-protos")  # fmt: skip
    try:
        written = write_stubs(options.folder)
    except OSError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit("error: the protocol compiler failed; its message is above")
    print(f"wrote {', '.join(path.name for path in written)} to {options.folder}")


if __name__ == "__main__":
    main()
