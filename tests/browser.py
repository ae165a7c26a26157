"""A page in headless Chromium, for tests that look at HTML.

python -m tests.browser PAGE.html OUT.png --at=SELECTOR [--size=1200x1700]

takes a picture of a page from some element on, for the docs.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclasses.dataclass
class Opened:
  """A page of Playwright, what it complained of and what it asked for."""

  page: Any
  complaints: list[str]
  requests: list[str]

  @property
  def width(self) -> int:
    """Of the content, CSS pixels: more than the window's means scrolling."""
    return self.page.evaluate("document.documentElement.scrollWidth")


@contextlib.contextmanager
def launched() -> Iterator[Any]:
  """Playwright's browser; skips the test without Chromium."""
  executable = next(filter(None, map(shutil.which, _NAMES)), None)
  executable = os.environ.get("CHROMIUM", executable)
  if not executable:
    pytest.skip("no Chromium on this machine (CHROMIUM=path names one)")
  from playwright.sync_api import sync_playwright

  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=executable, args=["--no-sandbox"]
    )
    try:
      yield browser
    finally:
      browser.close()


@contextlib.contextmanager
def opened(path: pathlib.Path, width: int = 390) -> Iterator[Opened]:
  """Opens a file in a window of that width; skips the test without Chromium.

  The network is off: whatever a page tries to load from it is a complaint.
  """
  with launched() as browser:
    context = browser.new_context(
      viewport={"width": width, "height": 844}, offline=True
    )
    page = context.new_page()
    found = Opened(page, [], [])
    page.on("console", lambda m: found.complaints.append(m.text))
    page.on("pageerror", lambda e: found.complaints.append(str(e)))
    page.on("request", lambda r: found.requests.append(r.url))
    page.goto(path.as_uri())
    yield found


def main() -> None:
  parser = argparse.ArgumentParser(description="A picture of a page.")
  parser.add_argument("page", type=pathlib.Path)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--at", default="body", help="CSS selector")
  parser.add_argument("--size", default="1200x1700", help="CSS pixels")
  flags = parser.parse_args()
  width, height = map(int, flags.size.split("x"))
  with opened(flags.page.resolve(), width) as found:
    found.page.set_viewport_size({"width": width, "height": height})
    found.page.evaluate(
      "s => document.querySelector(s).scrollIntoView()", flags.at
    )
    found.page.screenshot(path=flags.out)
  with Image.open(flags.out) as picture:
    small = picture.convert("RGB").quantize(256)
  small.save(flags.out, optimize=True)


if __name__ == "__main__":
  main()
