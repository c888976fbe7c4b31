"""The list of settings in docs/ is the one that the code has."""

from stack.reference import DOCUMENT, reference


def test_the_settings_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == reference(), "run: python -m stack.reference"
