"""The reference in docs/ says what the code has."""

import pytest

from stack.reference import DOCS, DOCUMENTS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_the_reference_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == DOCUMENTS[name](), "run: python -m stack.reference"
