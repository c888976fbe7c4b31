"""What the tests of whole stacks share: they start the real TorchServe."""

import shutil
from pathlib import Path

import pytest

from tests.running_stack import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of this folder as slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the working tree, so that commands that write do not touch this one."""
    copy = tmp_path / "checkout"
    built = shutil.ignore_patterns(
        ".venv*", ".git", "var", ".*_cache", "__pycache__", "node_modules"
    )
    shutil.copytree(ROOT, copy, ignore=built)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy
