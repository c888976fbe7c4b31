"""Each address takes the parameters that it knows, and says of any other where it belongs."""

from pathlib import Path

import pytest

from state_service.access import RIGHTS
from state_service.parameters import FIELDS, PARAMETERS
from tests.contract.contract_support import SPEC, operations, resolve
from tests.state_service.state_support import batch, serving

TORCHSERVE = "/predictions/scorer"


async def test_the_table_knows_every_route_and_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        routes = {
            (route.method, route.resource.canonical)
            for route in server.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    assert set(PARAMETERS) == routes == set(RIGHTS)


def test_the_table_is_the_contract() -> None:
    for method, path, operation in operations():
        if path == TORCHSERVE:
            continue
        declared = map(resolve, operation.get("parameters", []))
        in_query = {item["name"] for item in declared if item["in"] == "query"}
        assert in_query == set(PARAMETERS[method.upper(), path] or ()), (method, path)
    for (method, path), fields in FIELDS.items():
        body = SPEC["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]
        assert set(resolve(body["schema"])["properties"]) == set(fields)


async def test_every_address_refuses_a_parameter_that_it_does_not_know(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u"], [1]))
        for (method, template), known in PARAMETERS.items():
            path = template.replace("{user_id}", "u").replace("{name}", "style.css")
            if known is None:
                if "static" not in path:
                    assert (await server.ask(method, f"{path}?_=17")).status == 200, path
                continue
            for asked in (method, *(["HEAD"] if method == "GET" else [])):
                answer = await server.ask(asked, f"{path}?nonsense=1")
                assert answer.status == 400, path
            answer = await server.problem(method, f"{path}?nonsense=1", 400, "invalid_request")
            assert "'nonsense'" in answer.body["detail"]
            assert f"{method} {template}" in answer.body["detail"]
        stats = await server.get("/stats")
        assert (stats["live_events"], stats["users_forgotten"]) == (1, 0)


@pytest.mark.parametrize(
    ("method", "address", "where"),
    [
        ("POST", "/medians?window=1", 'put it into the body, as its field "window"'),
        ("POST", "/medians?at=1", 'put it into the body, as its field "at"'),
        ("POST", "/scores?dry_run=1", "X-Dry-Run: 1"),
        ("GET", "/stats?access_token=x", "Authorization: Bearer"),
        ("GET", "/users/u/median?windw=5", "did you mean window?"),
        ("GET", "/users/u/median?q=0.5", "known at GET /users/{user_id}/stats"),
        ("GET", "/stats?user_id=u", "known at GET /events, GET /overview"),
        ("DELETE", "/users/u?dry_run=1", "takes no parameters"),
        ("POST", "/snapshot?wait=1", "takes no parameters"),
        ("GET", "/metrics?name[]=medianserve_ready", "takes no parameters"),
    ],
)
async def test_an_unknown_parameter_is_told_where_it_belongs(
    tmp_path: Path, method: str, address: str, where: str
) -> None:
    async with serving(tmp_path) as server:
        answer = await server.problem(method, address, 400, "invalid_request")
        assert where in answer.body["detail"]


async def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k", ["u", "u"], [1, 2]))
        stats = await server.get("/users/u/stats?q=.5,+1,1.,5e-1")
        assert [item["q"] for item in stats["quantiles"]] == [0.5, 1.0, 1.0, 0.5]
        again = await server.get("/users/u/stats?q=0.5&q=1,0")
        assert [item["q"] for item in again["quantiles"]] == [0.5, 1.0, 0.0]
        for text, window in (("+60", 60), ("60.", 60), ("1e2", 100), (".5e1", 5), ("%2B60", 60)):
            answer = await server.get(f"/users/u/median?window={text}")
            assert answer["window_seconds"] == window
        for text in ("1", "+1", "1.0", "1e0"):
            assert len((await server.get(f"/users/u/scores?limit={text}"))["scores"]) == 1
        for text in ("1.5", "1_0", "0", "-1", "1e9", "one"):
            path = f"/users/u/scores?limit={text}"
            await server.problem("GET", path, 400, "invalid_request")
