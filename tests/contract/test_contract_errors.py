"""Every code that the contract names is explained in docs/errors.md, and no other."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.contract_support import SPEC
from tests.readme import ROOT

ERRORS = (ROOT / "docs" / "errors.md").read_text()


def codes_of(node: Any, status: int | None = None) -> Iterator[tuple[str, int | None]]:
    """Walk the contract for `{properties: {status: …, code: {enum: […]}}}`."""
    if isinstance(node, dict):
        properties = node.get("properties")
        if isinstance(properties, dict) and "enum" in properties.get("code", {}):
            statuses = properties.get("status", {}).get("enum", [])
            its_status = statuses[0] if len(statuses) == 1 else None
            yield from ((code, its_status) for code in properties["code"]["enum"])
        for value in node.values():
            yield from codes_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from codes_of(value)


IN_CONTRACT = set(codes_of(SPEC))


def test_each_code_of_the_contract_is_explained() -> None:
    explained = set(re.findall(r"^(?:### |\| )`(\w+)`", ERRORS, re.MULTILINE))
    assert {code for code, _ in IN_CONTRACT} == explained


@pytest.mark.parametrize("code", sorted({code for code, status in IN_CONTRACT if status}))
def test_a_code_is_explained_with_the_status_it_has(code: str) -> None:
    statuses = {status for name, status in IN_CONTRACT if name == code and status}
    shown = set(map(int, re.findall(rf"^### `{code}`, (\d+)", ERRORS, re.MULTILINE)))
    assert not shown or shown == statuses or shown <= statuses
