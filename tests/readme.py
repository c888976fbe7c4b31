"""The documents' commands and the answers they show for them."""

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# Values that are another at each run; that they are there is what counts.
VOLATILE = {"newest_timestamp", "avg_ingest_latency_seconds"}


class Example(NamedTuple):
    section: str
    command: str
    answer: Any  # None where none is shown


def examples(document: str = README) -> list[Example]:
    """Return the commands of a document in order, with the section each stands in."""
    found: list[Example] = []
    for part in re.split(r"^##+ ", document, flags=re.MULTILINE)[1:]:
        title, _, section = part.partition("\n")
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            if language == "bash":
                found.append(Example(title, text.strip(), None))
            elif language == "json":
                found[-1] = found[-1]._replace(answer=json.loads(text))
    return found


def last_document(text: str) -> Any:
    """Return the last of several JSON documents in a row, as a loop of curls prints them."""
    decoder, end, document = json.JSONDecoder(), 0, None
    while text[end:].strip():
        document, end = decoder.raw_decode(text, end)
    return document


def assert_shown(shown: Any, real: Any, where: str = "answer") -> None:
    """Assert that what the README shows is in the real answer; it may show less."""
    if isinstance(shown, dict):
        assert isinstance(real, dict), where
        for key, value in shown.items():
            assert key in real, f"{where} has no {key}"
            if key not in VOLATILE or value is None:
                assert_shown(value, real[key], f"{where}.{key}")
            else:
                assert isinstance(real[key], float), f"{where}.{key}"
    elif isinstance(shown, list):
        assert len(shown) == len(real), where
        for index, (one, other) in enumerate(zip(shown, real, strict=True)):
            assert_shown(one, other, f"{where}[{index}]")
    elif isinstance(shown, float):
        # Another processor may round a score's last bit another way.
        assert math.isclose(shown, real, rel_tol=1e-6), f"{where}: {shown} != {real}"
    else:
        assert shown == real, f"{where}: {shown} != {real}"
