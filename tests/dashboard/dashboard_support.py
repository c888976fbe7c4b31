"""A browser on the live page, that notices whatever a visitor should never meet."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

expect.set_options(timeout=30_000)  # milliseconds; a busy machine is not a broken page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ROOT_CANNOT_SANDBOX = ["--no-sandbox"] if os.geteuid() == 0 else []


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the system's Chromium without a window."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail("no Chromium is installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=ROOT_CANNOT_SANDBOX)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """One page, and what it did that it must not."""

    page: Page
    host: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Take down errors, and requests that leave the host."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def _request(self, url: str) -> None:
        if urlsplit(url).netloc != self.host:
            self.complaints.append(f"request to {url}")

    async def text(self, selector: str) -> str:
        """Return what an element shows."""
        return await self.page.locator(selector).inner_text()

    async def shows(self, selector: str, text: Any) -> None:
        """Wait until an element shows this."""
        await expect(self.page.locator(selector)).to_have_text(text)

    async def is_live(self) -> None:
        """Wait until the page has been told the numbers."""
        await self.shows("#connection", "Live")
        await expect(self.page.locator("#conditions p").first).to_be_visible()

    async def search(self, user_id: str) -> None:
        """Type a user id and press Enter."""
        await self.page.get_by_label("User id").fill(user_id)
        await self.page.get_by_label("User id").press("Enter")


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser, url: str, path: str = "/", *, tolerated: str = "", **options: Any
) -> AsyncIterator[Visit]:
    """Open a page; at the end nothing may have been complained of, but what is `tolerated`."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    visit = Visit(page, urlsplit(url).netloc)
    visit.watch()
    await page.goto(url + path)
    try:
        yield visit
    finally:
        await context.close()
    wrong = [each for each in visit.complaints if not tolerated or tolerated not in each]
    assert wrong == []


def whole(text: str) -> float:
    """Return a number as the page writes it.

    >>> whole("1,234")
    1234.0
    """
    return float(text.replace(",", ""))


async def plotted(visit: Visit) -> Any:
    """Return the columns that the user's plot draws."""
    drawn = await visit.page.evaluate("JSON.stringify(globalThis.medianserve.user.plot.chart.data)")
    return msgspec.json.decode(drawn)
