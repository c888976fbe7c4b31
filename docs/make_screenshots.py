"""`make screenshots`: the pictures of the live page in docs/, taken from a running stack.

It starts the stack on ports of its own, loads it, and looks at it as a visitor does.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect, sync_playwright

from handler.default_model import default_store
from stack.addresses import Addresses
from stack.files import ROOT, SERVER_CONFIG
from stack.supervision import Stack

_FOLDER = Path(__file__).parent
_PORT_OFFSET = 730
_LOAD = ("--rate", "5000", "--users", "2000", "--duration", "90")
_WATCHED_SECONDS = 45  # so that the charts have something to show
_WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 1180}}
_PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
}
_PICTURES: dict[str, dict[str, Any]] = {
    "page-light": {**_WIDE, "color_scheme": "light"},
    "page-dark": {**_WIDE, "color_scheme": "dark"},
    "page-phone": {**_PHONE, "color_scheme": "light"},
}


def main() -> None:
    """Take them."""
    addresses = Addresses.load(SERVER_CONFIG, os.environ, _PORT_OFFSET)
    with contextlib.ExitStack() as exits:
        var = exits.enter_context(tempfile.TemporaryDirectory(prefix="medianserve-pictures-"))
        os.environ["TS_MODEL_STORE"] = str(default_store())
        exits.enter_context(Stack(addresses, Path(var), print)).wait_until_ready()
        load = subprocess.Popen(  # noqa: S603 - our own interpreter
            [
                sys.executable, "-m", "generator", "run",
                "--url", addresses.inference.url, "--state-url", addresses.state.url, *_LOAD,
            ],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"),
                    args=["--no-sandbox"] if os.geteuid() == 0 else [],
                )
                _take(browser, addresses.state.url)
                browser.close()
        finally:
            load.terminate()
            load.wait()


def _take(browser: Browser, url: str) -> None:
    pages = {}
    for name, options in _PICTURES.items():
        page = browser.new_context(**options).new_page()
        page.goto(url)
        expect(page.locator("#most-active a").nth(9)).to_be_visible(timeout=60_000)
        pages[name] = page
    next(iter(pages.values())).wait_for_timeout(_WATCHED_SECONDS * 1000)
    for page in pages.values():
        page.get_by_label("Window").select_option(index=1)
        page.locator("#most-active a").last.click()
        expect(page.locator("#user-plot canvas")).to_be_visible(timeout=60_000)
    for name, page in pages.items():
        page.wait_for_timeout(3000)
        top = "#user-title" if name == "page-phone" else "header"
        page.locator(top).evaluate("element => element.scrollIntoView()")
        page.screenshot(path=_FOLDER / f"{name}.png")
        print(f"docs/{name}.png")


if __name__ == "__main__":
    main()
