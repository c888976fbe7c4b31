"""The page in every state that the service and its surroundings can be in."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.dashboard.dashboard_support import visiting
from tests.state_service.state_support import batch, serving
from tests.state_service.torchserve_fake import torchserve

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's
LOST = "Failed to load resource"  # Chromium's own words, also for an answer that is an error
READ = "read-token-of-the-tests"


async def test_while_it_restores_the_page_says_how_far_it_is(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        status = server.service.restored
        server.service.phase = "restoring"
        status.segments_total, status.segments_done = 62, 20
        async with visiting(browser, server.url) as visit:
            await visit.shows("#conditions", "Restoring what was recorded: 20 of 62 segments.")
            bar = visit.page.get_by_role("progressbar", name="Restoring")
            await expect(bar).to_be_visible()
            assert await bar.evaluate("bar => bar.value") == pytest.approx(20 / 62)
            server.service.phase = "ready"
            await visit.shows("#conditions", "Ready, and waiting for the first event.")
            await expect(bar).to_be_hidden()


async def test_the_page_comes_back_by_itself_when_the_service_does(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["alice"] * 12, [0.5] * 12))
        url, port = server.url, int(server.url.rpartition(":")[2])
        context = visiting(browser, url, "/#user=alice", tolerated=LOST)
        visit = await context.__aenter__()
        await visit.shows("#user-count", "12")
    try:
        await visit.shows("#connection", "Connection lost, trying again …")
        await visit.shows("#user-message", "The connection was lost; trying again.")
        await visit.shows("#conditions", re.compile("^The state service does not answer."))
        await visit.shows("#live-events", "12")  # what was last heard
        async with serving(tmp_path, port=port) as server:
            await server.record(batch("b", ["alice"], [0.5]))
            await visit.shows("#connection", "Live")
            await visit.shows("#user-count", "13")
            await visit.shows("#user-message", "Watching “\u2068alice\u2069”, the last 5 minutes.")
            await visit.shows("#live-events", "13")
            await visit.shows("#conditions", "All is well: every answered event is counted.")
    finally:
        await context.__aexit__(None, None, None)


async def test_torchserve_is_shown_as_it_is(browser: Browser, tmp_path: Path) -> None:
    async with torchserve() as fake:
        urls: Any = {"torchserve_url": fake.url, "management_url": fake.url}
        async with serving(tmp_path, **urls) as server, visiting(browser, server.url) as visit:
            await visit.shows("#torchserve-state", "healthy")
            await visit.shows("#torchserve-workers", "2 of 2")
            await visit.shows("#torchserve-queue", "3")
            await visit.shows("#torchserve-version", "1.0")
            port = urlsplit(fake.url).port
            command = visit.page.locator("#first-command")
            await expect(command).to_contain_text(f"curl http://127.0.0.1:{port}/predictions/")
            fake.worker_states = ["READY", "UNLOADED"]
            await visit.shows("#conditions", "1 of TorchServe's 2 workers are ready.")
            fake.worker_states = ["UNLOADED"]
            await visit.shows("#conditions", "TorchServe does not score: no worker is ready.")


async def test_a_replay_shows_its_time_and_everybody_s_middle(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path, clock="event") as server:
        recorded = {"key": "k", "user_id": ["a", "b"], "timestamp": [1.5e9, 1.5e9 - 1.0]}
        await server.record({**recorded, "score": [0.25, 0.75]})
        async with visiting(browser, server.url) as visit:
            await visit.shows("#replay-time", "2017-07-14 02:40:00 UTC")
            await visit.shows("#replay-behind", re.compile(r"[\d,]+ days"))
            await visit.shows("#replay-waiting", "0 s")
            await visit.shows(
                "#middle-note", re.compile(r"The median of 2 users' medians is 0\.5000 \(.+\)\.")
            )


async def test_under_the_server_s_time_there_is_no_replay_to_show(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server, visiting(browser, server.url) as visit:
        await visit.is_live()
        await expect(visit.page.locator("#replay")).to_be_hidden()


async def test_a_user_id_from_right_to_left_or_blank_stays_readable(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["\u05d0\u05d1 (1)"] * 3 + [" "], [0.5] * 4))
        async with visiting(browser, server.url) as visit:
            names = visit.page.locator("#most-active tbody th bdi")
            await expect(names).to_have_text(["\u05d0\u05d1 (1)", "(blank, 1 character)"])


async def test_without_torchserve_the_page_works_and_says_so(
    browser: Browser, tmp_path: Path
) -> None:
    async with torchserve() as fake:
        url = fake.url
    async with serving(tmp_path, management_url=url) as server:
        await server.record(batch("a", ["alice"] * 12, [0.5] * 12))
        async with visiting(browser, server.url) as visit:
            await visit.shows("#torchserve-state", "away")
            await visit.shows(
                "#conditions",
                "TorchServe is away: connection refused. Medians are answered all the same.",
            )
            await visit.shows("#live-events", "12")
            await visit.search("alice")
            await visit.shows("#user-median", "0.5000")


async def test_what_keeps_a_person_awake_is_said_the_worst_first(
    browser: Browser, tmp_path: Path
) -> None:
    report = {
        "host": "h", "batches": 3, "bytes": 4096, "oldest_seconds": 12.0, "refused": 0,
        "spooled_events": 30, "replayed_events": 0, "expired_events": 0,
    }  # fmt: skip
    async with serving(tmp_path) as server:
        await server.post("/scores", {"batches": [], "spool": report})
        server.service.commits.error = "database or disk is full"
        async with visiting(browser, server.url) as visit:
            await visit.is_live()
            assert await visit.page.locator("#conditions p").all_inner_texts() == [
                "The journal cannot be written, events wait: database or disk is full.",
                "3 requests wait in the spool, the oldest for 12 s.",
            ]
            await visit.shows("[data-stat='spool.batches']", "3")
            server.service.commits.error = None
            await expect(visit.page.locator("#conditions p")).to_have_count(1)


async def test_a_token_is_asked_for_a_wrong_one_is_told_and_one_can_be_forgotten(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, read_token=READ, write_token=READ[::-1]) as server,
        visiting(browser, server.url, tolerated=LOST) as visit,
    ):
        page = visit.page
        await expect(page.locator("#token")).to_be_focused()
        await expect(page.locator(".tiles")).to_be_hidden()
        await expect(page.locator("#token-refused")).to_be_hidden()
        await page.keyboard.type("not the token of this service")
        await page.keyboard.press("Enter")
        await visit.shows("#token-refused", "That is not a token of this service.")
        await expect(page.locator("#token")).to_be_focused()
        await page.keyboard.type(READ)
        await page.keyboard.press("Enter")
        await visit.shows("#connection", "Live")
        await expect(page.locator(".tiles")).to_be_visible()
        await expect(page.get_by_role("link", name="Metrics")).to_be_hidden()
        await page.get_by_role("button", name="Forget token").click()
        await expect(page.locator("#token")).to_be_focused()


async def test_a_tab_in_the_background_says_that_something_is_wrong(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server, visiting(browser, server.url) as visit:
        await expect(visit.page).to_have_title("medianserve")
        server.service.commits.error = "no room"
        await expect(visit.page).to_have_title("✕ medianserve")
        server.service.commits.error = None
        await expect(visit.page).to_have_title("medianserve")


async def test_too_many_pages_are_told_to_wait(browser: Browser, tmp_path: Path) -> None:
    async with (
        serving(tmp_path, max_viewers=0) as server,
        visiting(browser, server.url, tolerated="503 (Service Unavailable)") as visit,
    ):
        await visit.shows("#connection", "0 streams are served: the limit (max_viewers)")


async def _violations(page: Page) -> Any:
    # A page of our policy runs no script of others: the check is put in by the browser itself.
    results = await Axe().run(page)
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in results.response["violations"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_axe_finds_nothing_to_complain_of(
    browser: Browser, tmp_path: Path, theme: Any, width: int
) -> None:
    viewport: Any = {"width": width, "height": 900}
    options: Any = {"color_scheme": theme, "viewport": viewport}
    async with serving(tmp_path) as server, visiting(browser, server.url, **options) as visit:
        await visit.is_live()
        assert await _violations(visit.page) == []  # empty
        await server.record(batch("a", ["alice"] * 50, [n / 50 for n in range(50)]))
        server.service.snapshots.error = "disk I/O error"
        await visit.search("alice")
        await visit.shows("#user-count", "50")
        await expect(visit.page.locator("#most-active a")).to_have_count(1)
        assert await _violations(visit.page) == []  # busy, with a warning
        await visit.page.goto(f"{server.url}/overview?user_id=alice")
        assert await _violations(visit.page) == []


async def test_the_theme_is_the_system_s_until_another_is_chosen_and_then_stays(
    browser: Browser, tmp_path: Path
) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    options: Any = {"color_scheme": "dark"}
    async with serving(tmp_path) as server, visiting(browser, server.url, **options) as visit:
        await visit.is_live()
        button = visit.page.get_by_role("button", name="Dark")
        await expect(button).to_have_attribute("aria-pressed", "true")
        dark = await visit.page.evaluate(ground)
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "false")
        light = await visit.page.evaluate(ground)
        assert light != dark
        await visit.page.reload()
        await visit.is_live()
        assert await visit.page.evaluate(ground) == light


async def test_the_keyboard_alone_leads_everywhere(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["alice"] * 3, [0.1, 0.2, 0.6]))
        async with visiting(browser, server.url) as visit:
            await visit.is_live()
            await expect(visit.page.locator("#most-active a")).to_have_count(1)
            seen = []
            for _ in range(16):
                await visit.page.keyboard.press("Tab")
                focused = visit.page.locator(":focus")
                seen.append((await focused.inner_text()) or await focused.get_attribute("id"))
                outline = await focused.evaluate("e => getComputedStyle(e).outlineStyle")
                assert outline != "none", seen[-1]
                if seen[-1] == "alice":
                    break
            assert seen[0] == "Skip to the numbers"
            assert {"API docs", "Dark", "user-id", "Watch", "alice"} <= set(seen)
            await visit.page.keyboard.press("Enter")
            await visit.shows("#user-median", "0.2000")


async def test_nothing_moves_for_those_who_asked_for_that(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for motion, animated in (("reduce", False), ("no-preference", True)):
            options: Any = {"reduced_motion": motion}
            async with visiting(browser, server.url, **options) as visit:
                await visit.is_live()
                running = await visit.page.evaluate("document.getAnimations().length")
                assert (running > 0) == animated


async def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Browser, tmp_path: Path
) -> None:
    user_id = "a-very-long-user-id-" * 12
    async with serving(tmp_path) as server:
        await server.record(batch("a", [user_id] * 30, [n / 30 for n in range(30)]))
        options: Any = {"viewport": {"width": 360, "height": 740}, "is_mobile": True}
        async with visiting(browser, server.url, **options) as visit:
            await visit.search(user_id)
            await visit.shows("#user-count", "30")
            await expect(visit.page.locator("#most-active a")).to_have_count(1)
            assert await visit.page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_the_policy_of_the_page_stops_a_script_that_got_in(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path) as server,
        visiting(browser, server.url, tolerated="Content Security Policy") as visit,
    ):
        await visit.is_live()
        await visit.page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "globalThis.gotIn = true";
              document.body.append(script);
              const image = document.createElement("img");
              image.setAttribute("onerror", "globalThis.gotIn = true");
              image.src = "data:,";
              document.body.append(image);
            }"""
        )
        await asyncio.sleep(0.3)
        assert await visit.page.evaluate("globalThis.gotIn") is None
