"""docs/compatibility.md says what the tests hold."""

from tests.compatibility.document import PAGE, page


def test_the_page_is_written_from_the_tables() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.compatibility.document"
