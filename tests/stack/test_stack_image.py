"""The scorer's image has a few of our modules: all that those need."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Not with what an editable install would find beyond this folder.
START = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "_Editable" not in repr(finder)]
sys.path.insert(0, ".")
module = sys.argv[1]
sys.argv[1:] = ["--help"]
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize("module", ["stack.torchserve", "stack.probe", "stack.workers"])
def test_a_program_of_the_image_starts_with_what_is_copied_into_it(
    tmp_path: Path, module: str
) -> None:
    dockerfile = (ROOT / "handler" / "Dockerfile").read_text()
    for sources, folder in re.findall(r"&& cp (.+) app/(handler|stack) ", dockerfile):
        (tmp_path / folder).mkdir(exist_ok=True)
        for source in sources.split():
            shutil.copy(ROOT / source, tmp_path / folder)
    done = subprocess.run(
        [sys.executable, "-P", "-c", START, module],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module}")
