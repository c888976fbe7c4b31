"""`python -m stack.torch_index`: print the package index to take torch from; nothing for pip's.

PyPI's torch for Linux brings CUDA's libraries, gigabytes of them. Where there is no GPU to use
them, PyTorch's own index of CPU builds serves an eighth of that. Used by `make` and by the image,
before anything is installed: the standard library alone. Which one is taken, and why, goes to
standard error.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
VARIABLE = "TORCH_INDEX_URL"
_PROBE_SECONDS = 4.0


class Choice(NamedTuple):
    """An index ("" for pip's own), and why it is this one."""

    url: str
    reason: str

    def __str__(self) -> str:
        index = self.url or "pip's own index"
        return f"installing torch from {index}: {self.reason}"


def torch_index(environment: Mapping[str, str], platform: str = sys.platform) -> Choice:
    """Choose the user's own index, or that of the CPU builds where they are wanted and in reach."""
    given = environment.get(VARIABLE, "").strip()
    if given:
        return Choice(given, f"{VARIABLE} names it")
    if platform != "linux":
        return Choice("", "only for Linux does it bring CUDA")
    if _has_gpu():
        return Choice("", "there is a GPU")
    if not _answers(f"{CPU_INDEX}/torch/"):
        return Choice("", f"{CPU_INDEX} does not answer")
    return Choice(
        CPU_INDEX, f"no GPU is seen here (to use one: {VARIABLE}=https://pypi.org/simple, PyPI's)"
    )


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
    choice = torch_index(os.environ)
    print(choice, file=sys.stderr)
    print(choice.url)
