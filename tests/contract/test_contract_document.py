"""openapi.yaml is a valid OpenAPI 3.1 document, and complete in itself."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from state_service.documentation import SPEC_PATH
from tests.contract.contract_support import METHODS, SPEC, operations, pointer, problems, resolve


def _walk(node: Any, *place: str | int) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield every node of the document with its place."""
    yield place, node
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        # What stands inside an example is data, not document.
        if key not in ("example", "value") or place[-1:] == ("properties",):
            yield from _walk(child, *place, key)


NODES = list(_walk(SPEC))


def _schemas() -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for place, node in NODES:
        if place[-1:] == ("schema",) or place[:-1] == ("components", "schemas"):
            yield place, node


def test_it_says_what_it_is() -> None:
    assert SPEC["openapi"] == "3.1.0"
    assert set(SPEC) <= {"openapi", "info", "servers", "tags", "paths", "components"}
    assert {"title", "version", "description"} <= set(SPEC["info"])
    for item in SPEC["paths"].values():
        assert set(item) <= {"summary", "description", "servers", "parameters", *METHODS}


def test_every_reference_resolves_and_every_component_is_used() -> None:
    used = [node["$ref"] for _, node in NODES if isinstance(node, dict) and "$ref" in node]
    for reference in used:
        assert resolve({"$ref": reference}) is not None
    components = {
        pointer("components", kind, name)
        for kind, named in SPEC["components"].items()
        for name in named
        if kind != "securitySchemes"  # named, not referred to
    }
    assert components == set(used)
    schemes = {
        scheme
        for _, _, operation in operations()
        for requirement in operation.get("security", [])
        for scheme in requirement
    }
    assert schemes == set(SPEC["components"]["securitySchemes"])


def test_every_schema_is_a_schema() -> None:
    places = [
        place for place, schema in _schemas() if not Draft202012Validator.check_schema(schema)
    ]
    assert len(places) > 40


def test_every_object_in_an_answer_is_closed() -> None:
    open_on_purpose = {"Event", "ModelReport", "SpoolReport", "TorchServeError"}
    for name, schema in SPEC["components"]["schemas"].items():
        if schema.get("type") == "object" and name not in open_on_purpose:
            assert schema["additionalProperties"] is False, name
            assert set(schema["required"]) <= set(schema["properties"]), name


def test_every_example_is_an_example_of_its_schema() -> None:
    checked = 0
    for place, node in NODES:
        if not isinstance(node, dict) or "schema" not in node:
            continue
        examples = [node["example"]] if "example" in node else []
        examples += [resolve(example)["value"] for example in node.get("examples", {}).values()]
        for example in examples:
            wrong = problems(pointer(*place, "schema"), example)
            assert not wrong, f"{pointer(*place)}: {wrong}"
            checked += 1
    assert checked > 30


def test_every_json_body_has_an_example() -> None:
    without = {"/openapi.json", "/metrics", "application/msgpack", "text/html", "text/event-stream"}
    for place, node in NODES:
        if place[-2:-1] == ("content",) and not without & set(place):
            assert {"example", "examples"} & set(node), pointer(*place)


def test_every_operation_is_described_and_tagged() -> None:
    identities = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(identities)) == len(identities)
    tags = {tag["name"] for tag in SPEC["tags"]}
    for _, path, operation in operations():
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert {"200", "202"} & set(operation["responses"])
        assert "default" in operation["responses"]
        assert all(resolve(answer)["description"] for answer in operation["responses"].values())
        declared = {
            parameter["name"]: parameter
            for parameter in map(resolve, operation.get("parameters", []))
        }
        in_path = {name for name, item in declared.items() if item["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        for parameter in declared.values():
            assert parameter["description"]
            assert "schema" in parameter


def test_every_code_is_explained_where_it_may_come() -> None:
    for place, node in NODES:
        if not (isinstance(node, dict) and "content" in node and "description" in node):
            continue
        for media in node["content"].values():
            schema = resolve(media.get("schema", {}))
            codes = [
                code
                for part in schema.get("allOf", [])
                for code in part.get("properties", {}).get("code", {}).get("enum", [])
            ]
            for code in codes:
                assert f"| `{code}` |" in node["description"], (pointer(*place), code)


def test_a_503_always_says_when_to_come_back() -> None:
    for _, path, operation in operations():
        if "503" in operation["responses"]:
            assert "Retry-After" in resolve(operation["responses"]["503"])["headers"], path


@pytest.mark.parametrize("word", ["\t", "TODO", "FIXME"])
def test_it_is_finished(word: str) -> None:
    assert word not in SPEC_PATH.read_text()
