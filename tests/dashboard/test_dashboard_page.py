"""What the page shows is what the service says."""

import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.dashboard.dashboard_support import plotted, visiting, whole
from tests.state_service.state_support import batch, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "'\"></script><script>alert(1)</script>",
    "a/b?c=d&e#f",
    "..",
    "%41",
    "ünï\N{GRINNING FACE}",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    " spaces  around ",
]


def value_at(stats: Any, name: str) -> Any:
    """Return what `data-stat` names."""
    for key in name.split("."):
        stats = stats[key]
    return stats


async def test_every_number_on_the_page_is_that_of_stats(browser: Browser, tmp_path: Path) -> None:
    now = time.time()
    async with serving(tmp_path) as server:
        await server.record(
            batch("a", ["u"] * 5, [1, 2, 3, 4, 5], [now, now, now, now - 999, now + 999], skipped=7)
        )
        for _ in range(2):
            await server.record(batch("b", ["v"] * 1234, [0.5] * 1234, received_at=now - 3))
        await server.get("/users/u/median")
        async with visiting(browser, server.url) as visit:
            await visit.is_live()
            stats = await server.get("/stats")
            named = await visit.page.locator("[data-stat]:not([data-unit])").all()
            assert len(named) > 15
            for element in named:
                name = await element.get_attribute("data-stat")
                assert name is not None
                assert whole(await element.inner_text()) == value_at(stats, name), name
            latency = stats["avg_ingest_latency_seconds"]
            await visit.shows("[data-stat=avg_ingest_latency_seconds]", f"{latency:.1f} s")
            await visit.shows("[data-stat='durability.mode']", "journal")
            assert stats["late"] == stats["future"] == 1
            assert stats["duplicates"] == 1234


async def test_numbers_and_charts_follow_new_events(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as server, visiting(browser, server.url) as visit:
        await visit.is_live()
        await visit.shows("#conditions", "Ready, and waiting for the first event.")
        await expect(visit.page.locator("#first-steps")).to_be_visible()
        await server.record(batch("a", ["u"] * 4321, [0.5] * 4321, received_at=time.time()))
        await visit.shows("#live-events", "4,321")
        await visit.shows("#conditions", "All is well: every answered event is counted.")
        await expect(visit.page.locator("#first-steps")).to_be_hidden()
        await expect(visit.page.locator("#events-rate")).not_to_have_text("0")
        chart = visit.page.locator("#chart-events")
        await expect(chart).not_to_have_attribute("aria-label", "0 at most")
        assert await chart.locator("canvas").count() == 1


async def test_the_plot_follows_a_user_s_new_events(browser: Browser, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["alice"] * 3, [0.1, 0.2, 0.6]))
        async with visiting(browser, server.url) as visit:
            await visit.search("alice")
            await visit.shows("#user-median", "0.2000")
            await visit.shows("#user-count", "3")
            _, dots, low, high, medians = await plotted(visit)
            assert sorted(dot for dot in dots if dot is not None) == [0.1, 0.2, 0.6]
            await server.record(batch("b", ["alice"] * 2, [0.9, 0.8]))
            await visit.shows("#user-median", "0.6000")
            await visit.shows("#user-count", "5")
            await visit.shows("#user-range", "0.1000 to 0.9000")
            times, dots, low, high, medians = await plotted(visit)
            assert sorted(dot for dot in dots if dot is not None) == [0.1, 0.2, 0.6, 0.8, 0.9]
            assert times == sorted(times)
            trail = [median for median in medians if median is not None]
            assert trail[-1] == 0.6
            assert 0.2 in trail
            stats = await server.get("/users/alice/stats?q=0.05,0.95")
            band = [next(x for x in reversed(column) if x is not None) for column in (low, high)]
            assert band == [quantile["value"] for quantile in stats["quantiles"]]
            assert "median 0.6" in str(
                await visit.page.locator("#user-plot").get_attribute("aria-label")
            )


async def test_a_hot_user_is_thinned_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    now, count = time.time(), 24_000
    scores = [float(number % 997) for number in range(count)]
    timestamps = [now - 200 * number / count for number in range(count)]
    async with serving(tmp_path) as server:
        server.set_clock(now)
        await server.record(batch("a", ["hot"] * count, scores, timestamps))
        async with visiting(browser, server.url, "/#user=hot") as visit:
            await visit.shows("#user-count", "24,000")
            median = (await server.get("/users/hot/median"))["median"]
            await visit.shows("#user-median", f"{median:#.4g}")
            await visit.shows("#user-shown", "one in 32 scores is drawn")
            times, dots, *_ = await plotted(visit)
            drawn = [time for time, dot in zip(times, dots, strict=True) if dot is not None]
            assert 300 < len(drawn) < 1000
            assert max(drawn) - min(drawn) > 190  # of all of the window


async def test_a_shorter_window_has_a_past_at_once(browser: Browser, tmp_path: Path) -> None:
    now = time.time()
    async with serving(tmp_path) as server:
        server.set_clock(now)
        await server.record(
            batch("a", ["u"] * 200, list(range(200)), [now - 200 + age for age in range(200)])
        )
        async with visiting(browser, server.url) as visit:
            await visit.is_live()
            await visit.page.get_by_label("Window").select_option("last minute")
            await visit.search("u")
            await visit.shows("#user-message", "Watching “\u2068u\u2069”, the last minute.")
            times, *_, medians = await plotted(visit)
            trail = [time for time, median in zip(times, medians, strict=True) if median]
            assert trail[0] < now - 50


async def test_a_user_nobody_knows_is_missed_and_then_found(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server, visiting(browser, server.url) as visit:
        await visit.is_live()
        await visit.search("bob")
        await visit.shows(
            "#user-message",
            "No score of “\u2068bob\u2069” in the last 5 minutes. "
            "It is shown here as soon as one comes.",
        )
        await expect(visit.page.locator("#user-view")).to_be_hidden()
        await server.record(batch("a", ["bob"], [0.25]))
        await visit.shows("#user-median", "0.2500")


@pytest.mark.parametrize("user_id", HOSTILE)
async def test_a_hostile_id_is_a_user_like_any_other(
    browser: Browser, tmp_path: Path, user_id: str
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", [user_id, user_id, "other"], [0.25, 0.75, 9]))
        async with visiting(browser, server.url) as visit:
            await visit.search(user_id)
            await visit.shows("#user-median", "0.5000")
            assert user_id.strip() in str(await visit.page.text_content("#user-message"))
            listed = visit.page.locator("#most-active tbody a").first
            assert await listed.text_content() == user_id
            await visit.page.goto(f"{server.url}/")
            await visit.page.locator("#most-active tbody a").first.click()
            await visit.shows("#user-median", "0.5000")
            assert await visit.page.locator("img[src=x], body script").count() == 0


async def test_an_id_that_no_event_can_have_is_refused_in_a_sentence(
    browser: Browser, tmp_path: Path
) -> None:
    tolerated = "400 (Bad Request)"  # which Chromium writes to the console by itself
    async with (
        serving(tmp_path) as server,
        visiting(browser, server.url, tolerated=tolerated) as visit,
    ):
        await visit.search("x" * 257)
        await visit.shows("#user-message", "Not shown: user_id must have 1 to 256 bytes.")


async def test_both_ends_of_the_rankings_are_listed(browser: Browser, tmp_path: Path) -> None:
    user_ids = [f"u{number}" for number in range(30) for _ in range(10 + number)]
    scores = [float(user_id[1:]) / 100 for user_id in user_ids]
    async with serving(tmp_path) as server:
        await server.record(batch("a", [*user_ids, "once"], [*scores, 99.0]))
        async with visiting(browser, server.url) as visit:
            tables = {"most-active": "u29", "highest-medians": "u29", "lowest-medians": "u0"}
            for table, first in tables.items():
                rows = visit.page.locator(f"#{table} tbody tr")
                await expect(rows).to_have_count(10)
                await expect(rows.first.locator("th")).to_have_text(first)
            await visit.shows("#ranked-note", "Medians of users with 10 scores or more.")
            items = (await server.get("/users?limit=10"))["items"]
            shown = await visit.page.locator("#most-active tbody tr").all_inner_texts()
            assert [row.split() for row in shown] == [
                [item["user_id"], str(item["count"]), f"{item['median']:#.4g}"] for item in items
            ]


async def test_who_chooses_from_a_list_is_led_to_the_user(browser: Browser, tmp_path: Path) -> None:
    phone = {"width": 390, "height": 844}
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["ann"] * 20, [0.5] * 20))
        async with visiting(browser, server.url, viewport=phone) as visit:
            await visit.page.locator("#lowest-medians a").click()
            await visit.shows("#user-count", "20")
            title = visit.page.locator("#user-title")
            await expect(title).to_be_focused()
            await expect(title).to_be_in_viewport()


async def test_without_javascript_the_same_numbers_are_plain_tables(
    browser: Browser, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("a", ["<b>alice</b>"] * 1500, [0.25] * 1500))
        async with visiting(browser, server.url, java_script_enabled=False) as visit:
            await visit.page.wait_for_url("**/overview")
            stats = await server.get("/stats")
            for name, value in (
                ("Events", stats["events_processed"]),
                ("Live events", stats["live_events"]),
                ("Users", stats["users"]),
                ("Journal rows", stats["journal"]["rows"]),
            ):
                row = visit.page.get_by_role("row").filter(
                    has=visit.page.get_by_role("rowheader", name=name, exact=True)
                )
                assert whole(await row.get_by_role("cell").inner_text()) == value
            await visit.page.get_by_label("User id").fill("<b>alice</b>")
            await visit.page.get_by_role("button", name="Look up").click()
            await expect(visit.page.get_by_text("User <b>alice</b>")).to_be_visible()
            assert await visit.page.locator("main b").count() == 0
