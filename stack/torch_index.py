"""`python -m stack.torch_index`: print the package index to take torch from; nothing for pip's.

PyPI's torch for Linux brings CUDA's libraries, gigabytes of them. Where there is no GPU to use
them, PyTorch's own index of CPU builds serves an eighth of that. Used by `make` and by the image,
before anything is installed: the standard library alone.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
VARIABLE = "TORCH_INDEX_URL"
_PROBE_SECONDS = 4.0


def torch_index(environment: Mapping[str, str], platform: str = sys.platform) -> str:
    """Return the user's own index, or that of the CPU builds where they are wanted and in reach."""
    given = environment.get(VARIABLE, "").strip()
    if given:
        return given
    if platform != "linux" or _has_gpu() or not _answers(f"{CPU_INDEX}/torch/"):
        return ""
    return CPU_INDEX


def _has_gpu() -> bool:
    """Whether the driver lists a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(  # noqa: S603 - the driver's own tool
            [tool, "-L"], capture_output=True, timeout=30, check=False
        )
        return listed.returncode == 0
    return False


def _answers(url: str) -> bool:
    """Whether pip would reach it, as far as one short request tells."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:  # noqa: S310 - https
            return bool(answer.status == 200)
    except (OSError, ValueError):  # all of urllib's own are the former
        return False


if __name__ == "__main__":
    print(torch_index(os.environ))
