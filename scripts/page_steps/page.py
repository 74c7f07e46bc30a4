"""What is asked of the live page in a browser."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import NamedTuple, Sequence

from .browser import Browser


class View(NamedTuple):
    """A window that the page is looked at in."""

    name: str
    width: int
    height: int
    scheme: str  # light or dark


VIEWS = (
    View("desktop-light", 1280, 800, "light"),
    View("desktop-dark", 1280, 800, "dark"),
    View("phone-light", 360, 740, "light"),
    View("phone-dark", 360, 740, "dark"),
)
HEADINGS = ("Loss", "Accuracy", "Who holds what, and what travels")
# As wide as the widest thing in it; more than the window means scrolling sideways.
WIDTH = "document.documentElement.scrollWidth"
# A promise of the page after the script in it has put a newer one in place of what was there.
REFRESHED = """new Promise(resolve => {
  const before = document.querySelector("main");
  const look = () => document.querySelector("main") === before ? setTimeout(look, 50) : resolve(true);
  look();
})"""


def problems(browser: Browser, address: str, devices: Sequence[str], folder: Path) -> list[str]:
    """What is wrong with the page at an address; pictures of it go to a folder."""
    found = []
    texts = {}
    for view in VIEWS:
        browser.show(f"http://{address}/", view.width, view.height, view.scheme)
        width = browser.value(WIDTH)
        if width > view.width:
            found.append(f"{view.name}: {width} pixels wide in a window of {view.width}")
        text = texts[view.name] = browser.value("document.body.innerText")
        missing = [word for word in (*HEADINGS, *devices) if word.lower() not in text.lower()]
        if missing:
            found.append(f"{view.name}: there is no {', '.join(missing)} on it")
        if "NaN" in text or "undefined" in text:
            found.append(f"{view.name}: it shows numbers that are none")
        colours = browser.value("getComputedStyle(document.body).backgroundColor")
        texts[view.scheme] = colours
        browser.picture(folder / f"{view.name}.png")
    if texts["light"] == texts["dark"]:
        found.append(f"light and dark are one colour: {texts['light']}")
    browser.value(REFRESHED)
    if browser.value("document.body.className") == "gone":
        found.append("it takes the run for lost")
    outside = [url for url in browser.requests if urllib.parse.urlsplit(url).netloc not in ("", address)]
    found += [f"it asked for {url}" for url in outside]
    found += [f"the browser says: {complaint}" for complaint in browser.complaints]
    return found


def loss(browser: Browser) -> list[str]:
    """What is wrong once the run has ended: the page stays, and says so."""
    browser.value('new Promise(done => { const look = () => document.body.className === "gone" ? done(true) : '
                  "setTimeout(look, 50); look(); })")
    shown = browser.value('getComputedStyle(document.querySelector(".lost")).display')
    kept = browser.value('document.querySelectorAll(".device").length')
    return [] if shown != "none" and kept > 0 else [f"after the end it shows {kept} devices, its notice: {shown}"]
