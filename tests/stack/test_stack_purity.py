"""What a module says of itself is held by an import contract."""

import ast
import re
import tomllib

from tests.running_stack import ROOT


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (
        contract
        for contract in tools["importlinter"]["contracts"]
        if contract["name"].startswith("Pure cores")
    )
    pure = {
        f"{package}.{path.stem}"
        for package in tools["importlinter"]["root_packages"]
        for path in (ROOT / package).glob("*.py")
        if re.search(r"\bPure\.", ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    assert len(pure) > 40
    assert pure <= set(contract["source_modules"])
